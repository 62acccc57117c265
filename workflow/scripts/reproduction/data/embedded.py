"""The data sets that come with scikit-learn: the handwritten digits, and a harder twin made from them.

Source of the images: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning
Repository (1998), doi:10.24432/C50P49; scikit-learn bundles 1797 of them, 8 x 8 pixels with grey levels 0 to 16.
"""

import hashlib

import numpy as np

from reproduction.data.prepared import RawData
from reproduction.errors import DataError

IMAGE_SHAPE = (8, 8)
N_CLASSES = 10
TEST_FRACTION = 0.2
SPLIT_SEED = 20
NOISE_SEED = 64
NOISE_DEVIATION = 32.0
BLOCK = 2
GREY_LEVELS = 4
_SHA256 = "0b7e9c3202d7bcd255d6a19a238d3743bf5e320ba74812a6679958a017c55382"


def load_digits() -> RawData:
    """The digits: 1797 images of 64 pixels, 10 classes, split once and for all into about 80% training, 20% test.

    The split is stratified (20% of every class, rounded) and drawn with SPLIT_SEED. Grey levels 0 to 16 are mapped to
    0 to 255. Raises `DataError` if scikit-learn's images are not the known ones.
    """
    pixels, targets = _verified_images()
    return _split("digits", pixels, targets, {})


def load_digits_noisy() -> RawData:
    """The harder twin: the same digits, labels and split, as a poor camera would see them.

    Gaussian noise (NOISE_SEED, NOISE_DEVIATION grey levels, clipped and rounded) falls on every pixel, then blocks of
    BLOCK x BLOCK pixels are averaged and stored with GREY_LEVELS levels; the image keeps its 64 pixels.
    """
    # Noise alone, however strong, leaves every image distinct, and the network then learns all of them by heart in
    # about 1000 steps of Adam, as it does with wrong labels. Few grey levels make some images of different digits
    # equal, so that the training loss stays away from 0, and the digits remain readable.
    pixels, targets = _verified_images()
    noise = np.random.RandomState(NOISE_SEED).normal(0.0, NOISE_DEVIATION, pixels.shape)
    noisy = np.clip(np.rint(pixels + noise), 0, 255).astype(np.int64)
    provenance = {
        "noise_seed": NOISE_SEED,
        "noise_deviation": NOISE_DEVIATION,
        "block": BLOCK,
        "grey_levels": GREY_LEVELS,
    }
    return _split("digits_noisy", _coarsen(noisy), targets, provenance)


def _coarsen(pixels: np.ndarray) -> np.ndarray:
    height, width = IMAGE_SHAPE
    blocks = pixels.reshape(-1, height // BLOCK, BLOCK, width // BLOCK, BLOCK)
    # In integers, so that the rounding of a mean cannot decide between two levels.
    brightest, highest = 255 * BLOCK * BLOCK, GREY_LEVELS - 1
    levels = (2 * highest * blocks.sum(axis=(2, 4)) + brightest) // (2 * brightest)
    coarse: np.ndarray = (levels * 255 // highest).astype(np.uint8)
    return coarse.repeat(BLOCK, axis=1).repeat(BLOCK, axis=2).reshape(len(pixels), height * width)


def _verified_images() -> tuple[np.ndarray, np.ndarray]:
    from sklearn import datasets  # imported only when digits are read, since that takes a second

    images, classes = datasets.load_digits(return_X_y=True)
    pixels = np.rint(images * 255 / 16).astype(np.uint8)
    targets = classes.astype(np.int64)
    found = hashlib.sha256(pixels.tobytes() + targets.astype("<i8").tobytes()).hexdigest()
    if found != _SHA256:
        raise DataError(
            f"scikit-learn's digits: sha256 {found}, expected {_SHA256}; "
            "install scikit-learn again, in the version of requirements.lock"
        )
    return pixels, targets


def _split(name: str, pixels: np.ndarray, targets: np.ndarray, provenance: dict[str, int | float]) -> RawData:
    test = _test_rows(targets)
    return RawData(
        name=name,
        train_inputs=pixels[~test],
        train_targets=targets[~test],
        test_inputs=pixels[test],
        test_targets=targets[test],
        n_classes=N_CLASSES,
        image_shape=IMAGE_SHAPE,
        provenance={"source": "scikit-learn digits", "sha256": _SHA256, "split_seed": SPLIT_SEED, **provenance},
    )


def _test_rows(targets: np.ndarray) -> np.ndarray:
    # RandomState, here and for the noise: NumPy keeps its stream the same in all versions, unlike that of default_rng.
    random = np.random.RandomState(SPLIT_SEED)
    test = np.zeros(len(targets), bool)
    for label in range(N_CLASSES):
        rows = np.flatnonzero(targets == label)
        test[random.permutation(rows)[: round(TEST_FRACTION * len(rows))]] = True
    return test
