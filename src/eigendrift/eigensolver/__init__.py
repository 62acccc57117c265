"""Extreme eigenpairs, trace and spectral density of a symmetric operator, and how far each can be trusted."""
