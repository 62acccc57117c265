"""The numbers that arXiv:2606.30226 gives, by dataset and optimizer, for figures to show beside ours.

What the paper says of no dataset in particular ("IPR about 0.1") it says of both.
"""

from collections.abc import Mapping

DATASETS = ("MNIST", "FashionMNIST")
# Of the network that the paper's digits imply: three hidden layers of 100, 100 and 10 units.
PARAMETERS = 89_720
# Section 3.3: IPR of v_1 at the end of training.
FINAL_IPR: Mapping[str, float] = {"adam": 0.1, "sgd": 1e-4}
# Appendix D and figure 2: run means, i = 1.
GRADIENT_ALIGNMENT: Mapping[tuple[str, str], float] = {("MNIST", "adam"): 0.26}
UPDATE_ALIGNMENT: Mapping[tuple[str, str], float] = {("MNIST", "adam"): 0.05, ("FashionMNIST", "adam"): 0.05}
# Of the gradient alignment of k classes in earlier work, which the paper compares with: 1/k.
ISOTROPIC_ALIGNMENT = 0.1
# Appendix C: mean overlap and mean displacement of v_1 between initializations, and the alignment of one step.
OVERLAP: Mapping[str, float] = {"MNIST": 0.0523, "FashionMNIST": 0.0492}
DISPLACEMENT: Mapping[str, float] = {"MNIST": 2.1125e-5, "FashionMNIST": 2.1194e-5}
ONE_STEP_ALIGNMENT = 0.1
# Section B.4: the gap between leading eigenvalues falls below it for Adam on MNIST.
SMALL_GAP = 1e-3
# Section B.2: the overlap with the final vector that is reached early.
EARLY_OVERLAP = 0.8
# Figure 16, MNIST: range of the entries of the final v_1, Adam over SGD.
COLOUR_RANGE_RATIO = 7.0


def is_the_papers(dataset: str) -> bool:
    """Whether the paper has results on a dataset."""
    return dataset in DATASETS
