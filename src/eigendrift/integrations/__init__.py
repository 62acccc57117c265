"""Trackers for training frameworks, one module each; the framework itself is imported by that module alone."""
