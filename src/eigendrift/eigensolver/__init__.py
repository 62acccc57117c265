"""Top eigenpairs of a symmetric operator, and how far each can be trusted."""
