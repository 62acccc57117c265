"""Recording a training run, solving for its eigenvectors, and the statistics of their motion."""
