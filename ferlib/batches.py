"""What a model is fed: augmented pictures, targets, class weights and shuffled batches.

Augmentation is one Keras layer, written with `keras.ops`, that runs inside the training graph of
every backend. It takes uint8 pictures and gives uint8 pictures back, so that what a model sees in
training is what it will be asked about later. Normalisation lives inside the models.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ferlib.backend import keras
from ferlib.labels import EMOTIONS, ferplus_labels

ops = keras.ops


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """How strongly pictures are changed at random; everything at zero changes nothing.

    Args:
        flip: Whether half of the pictures are mirrored left to right.
        shift: Largest shift in each direction, as a share of the side.
        rotation: Largest rotation either way, in degrees.
        zoom: Largest zoom in or out; 0.2 scales by 1/1.2 to 1.2.
        brightness: Largest change of brightness, as a share of the full range.
        contrast: Largest relative change of contrast.
        erase: Probability that a rectangle of 2 to 25 % of a picture is replaced by one grey
            (random erasing, Zhong et al. 2017, arXiv:1708.04896).
        sharp: Share of pictures that are shifted by whole pixels and neither rotated nor zoomed.
            Interpolation softens the others, and a model that has only seen softened pictures
            does worse on sharp ones.
    """

    flip: bool = True
    shift: float = 0.08
    rotation: float = 10.0
    zoom: float = 0.1
    brightness: float = 0.0
    contrast: float = 0.2
    erase: float = 0.0
    sharp: float = 0.5

    def __post_init__(self):
        limits = {"shift": 0.5, "rotation": 180, "zoom": 1, "brightness": 1, "contrast": 1}
        for name, most in (limits | {"erase": 1, "sharp": 1}).items():
            if not 0 <= getattr(self, name) <= most:
                raise ValueError(f"{name} is {getattr(self, name)}; it must lie in 0 to {most}.")


class Augmenter(keras.layers.Layer):
    """Changes pictures at random in training and passes them through otherwise.

    Flip, shift, rotation and zoom are one affine map, so each picture is interpolated only once.

    Args:
        augmentation: An `Augmentation`.
        seed: Seed of the layer's own random state.

    Returns:
        From a call: pictures of the shape and dtype given (uint8 [N, H, W, 1]).
    """

    def __init__(self, augmentation: Augmentation, *, seed: int = 0):
        super().__init__()
        self.augmentation = augmentation
        self.seed_generator = keras.random.SeedGenerator(seed)

    def call(self, images: Any, training: bool = False) -> Any:
        if not training:
            return images
        a = self.augmentation
        count, height, width, _ = ops.shape(images)
        u = keras.random.uniform((count, 14), minval=-1.0, maxval=1.0, seed=self.seed_generator)
        if a.sharp == 1:
            images = self._shifted(images, u)
        x = ops.cast(images, "float32")
        if a.sharp < 1 and (a.flip or a.shift or a.rotation or a.zoom):
            x = _moved(x, self._affine(u, height, width))
        if a.contrast:
            mean = ops.mean(x, axis=(1, 2, 3), keepdims=True)
            x = (x - mean) * (1 + a.contrast * _column(u, 5)) + mean
        if a.brightness:
            x = x + 255 * a.brightness * _column(u, 6)
        if a.erase:
            x = self._erased(x, u, height, width)
        return ops.cast(ops.clip(ops.round(x), 0, 255), images.dtype)

    def _affine(self, u: Any, height: Any, width: Any):
        """Gives the map from output to input pixels about the centre, float32 [N, 8]."""
        a = self.augmentation
        soft = (u[:, 13] + 1) / 2 >= a.sharp
        turn = ops.cast(soft, u.dtype)
        angle = math.radians(a.rotation) * turn * u[:, 0]
        scale = ops.exp(math.log(1 + a.zoom) * turn * u[:, 1])
        mirror = ops.where(u[:, 4] < 0, -1.0, 1.0) if a.flip else ops.ones_like(scale)
        cos = ops.cos(angle) / scale
        sin = ops.sin(angle) / scale
        dx = a.shift * width * u[:, 2]
        dy = a.shift * height * u[:, 3]
        cx = (width - 1) / 2
        cy = (height - 1) / 2
        dx = cx + ops.where(soft, dx, ops.round(dx))
        dy = cy + ops.where(soft, dy, ops.round(dy))
        zero = ops.zeros_like(cos)
        across = [cos * mirror, -sin * mirror, cx - mirror * (cos * dx - sin * dy)]
        down = [sin, cos, cy - sin * dx - cos * dy]
        return ops.stack([*across, *down, zero, zero], axis=1)

    def _shifted(self, images: Any, u: Any):
        """Flips and shifts by whole pixels, as `_affine` would, without interpolation: quicker."""
        _, height, width, _ = ops.shape(images)
        right = ops.cast(ops.round(self.augmentation.shift * width * u[:, 2:3]), "int32")
        down = ops.cast(ops.round(self.augmentation.shift * height * u[:, 3:4]), "int32")
        columns = ops.clip(ops.arange(width, dtype="int32") - right, 0, width - 1)
        if self.augmentation.flip:
            columns = ops.where(u[:, 4:5] < 0, width - 1 - columns, columns)
        rows = ops.clip(ops.arange(height, dtype="int32") - down, 0, height - 1)
        turned = ops.transpose(_rows(images, rows), (0, 2, 1, 3))
        return ops.transpose(_rows(turned, columns), (0, 2, 1, 3))

    def _erased(self, x: Any, u: Any, height: Any, width: Any):
        """Replaces a rectangle of some of the pictures by one grey."""
        rows = ops.reshape(ops.arange(height, dtype="float32"), (1, -1, 1, 1)) / height
        columns = ops.reshape(ops.arange(width, dtype="float32"), (1, 1, -1, 1)) / width
        area = 0.02 + 0.23 * (_column(u, 7) + 1) / 2
        aspect = ops.exp(math.log(3) * _column(u, 8))
        inside = ops.logical_and(
            ops.abs(rows - (_column(u, 9) + 1) / 2) < ops.sqrt(area * aspect) / 2,
            ops.abs(columns - (_column(u, 10) + 1) / 2) < ops.sqrt(area / aspect) / 2,
        )
        chosen = (_column(u, 11) + 1) / 2 < self.augmentation.erase
        grey = 127.5 * (_column(u, 12) + 1)
        return ops.where(ops.logical_and(inside, chosen), grey, x)


def _column(u: Any, number: int):
    """Gives one random number for each picture, [N, 1, 1, 1]."""
    return ops.reshape(u[:, number], (-1, 1, 1, 1))


def _rows(images: Any, rows: Any):
    """Takes rows of pictures, [N, H, W, C]: those that int32 [N, H] names."""
    count, height, width, channels = ops.shape(images)
    rows = rows + height * ops.arange(count, dtype="int32")[:, None]
    taken = ops.take(ops.reshape(images, (-1, width * channels)), rows, axis=0)
    return ops.reshape(taken, (-1, height, width, channels))


def _moved(images: Any, maps: Any):
    """Moves pictures, float32 [N, H, W, C]; what comes in from outside repeats the border.

    Args:
        images: The pictures.
        maps: float32 [N, 8], as in `keras.ops.image.affine_transform`, which on torch would go
            from picture to picture.
    """
    if keras.backend.backend() != "torch" or images.device.type == "mps":
        how = {"fill_mode": "nearest", "data_format": "channels_last"}
        return ops.image.affine_transform(images, maps, **how)
    from torch.nn import functional

    x = images.permute(0, 3, 1, 2)
    centre = maps.new_tensor([(x.shape[3] - 1) / 2, (x.shape[2] - 1) / 2])
    maps = maps[:, :6].reshape(-1, 2, 3)  # torch's run from -1 to 1 across a picture
    turns = maps[..., :2] * centre / centre[:, None]
    shifts = turns.sum(-1) + maps[..., 2] / centre - 1
    maps = ops.concatenate([turns, shifts[..., None]], axis=-1)
    grid = functional.affine_grid(maps, x.shape, align_corners=True)
    moved = functional.grid_sample(x, grid, padding_mode="border", align_corners=True)
    return moved.permute(0, 2, 3, 1)


def augment(images: np.ndarray, augmentation: Augmentation, *, seed: int = 0) -> np.ndarray:
    """Augments pictures once, as training would, to be looked at.

    Args:
        images: uint8 [N, H, W] or [N, H, W, 1].
        augmentation: What may change, and how much.
        seed: Seed of the changes.

    Returns:
        uint8 pictures of the shape given.

    Example:
        >>> augment(np.zeros((2, 48, 48), "uint8"), Augmentation(shift=0.2)).shape
        (2, 48, 48)
    """
    pictures = np.reshape(images, (*np.shape(images)[:3], 1))
    changed = Augmenter(augmentation, seed=seed)(pictures, training=True)
    return ops.convert_to_numpy(changed).reshape(np.shape(images))


def targets(
    labels: np.ndarray,
    votes: np.ndarray | None = None,
    *,
    classes: int | Sequence[str] = EMOTIONS,
    ferplus_weight: float = 0.0,
) -> np.ndarray:
    """Makes the distributions that a model is trained towards.

    Args:
        labels: int [N], each the place of a class.
        votes: float32 [N, 10], FER+'s votes; needed where `ferplus_weight` is above zero.
        classes: Names of the classes; or how many, of which the first seven are FER2013's.
        ferplus_weight: Share of the taggers' distribution over the classes (Barsoum et al. 2016,
            arXiv:1608.01041) in the target; the label keeps the rest. As there, an answer that
            one tagger alone gave is struck out. A picture that then has no vote for one of the
            classes, or whose own class FER+ does not know, keeps its label alone.

    Returns:
        float32 [N, classes], rows that sum to 1.

    Raises:
        ValueError: If votes are asked for and there are none.

    Example:
        >>> targets(np.array([1, 0]), classes=["sad", "happy", "bored"])
        array([[0., 1., 0.],
               [1., 0., 0.]], dtype=float32)
    """
    if isinstance(classes, int):
        classes = [*EMOTIONS, *map(str, range(len(EMOTIONS), classes))][:classes]
    labels = np.asarray(labels)
    hot = np.eye(len(classes), dtype="float32")[labels]
    if not ferplus_weight:
        return hot
    if votes is None:
        raise ValueError(
            "ferplus_weight needs FER+ votes: put fer2013new.csv beside the FER2013 csv, "
            "or set ferplus_weight to 0."
        )
    column = ferplus_labels(classes)
    tagged = np.zeros_like(hot)
    tagged[:, column[column >= 0]] = np.where(votes > 1, votes, 0)[:, column >= 0]
    total = tagged.sum(axis=1, keepdims=True)
    told = (total > 0) & np.isin(labels, column)[:, None]
    weight = np.where(told, ferplus_weight, 0.0).astype("float32")
    return (1 - weight) * hot + weight * tagged / np.maximum(total, 1)


def class_weights(labels: np.ndarray, *, classes: int = len(EMOTIONS)) -> dict[int, float]:
    """Weighs each label against its frequency, as scikit-learn's "balanced" does.

    Args:
        labels: int [N], 0 to `classes` - 1.
        classes: Number of classes.

    Returns:
        A weight for each label; a label that does not occur has weight 1.

    Example:
        >>> class_weights(np.array([0, 0, 0, 1]), classes=3)
        {0: 0.6666666666666666, 1: 2.0, 2: 1.0}
    """
    from sklearn.utils.class_weight import compute_class_weight

    present = np.unique(labels)
    balanced = compute_class_weight("balanced", classes=present, y=np.asarray(labels))
    weights = dict(zip(present.tolist(), balanced.tolist(), strict=True))
    return dict.fromkeys(range(classes), 1.0) | weights


class Batches(keras.utils.PyDataset):
    """Shuffled batches whose order follows from the seed and the epoch alone.

    An epoch that is run again, in this process or another, gives the same batches. The last
    pictures of an epoch that do not fill a batch are left out; each epoch leaves out others.

    Args:
        images: uint8 [N, 48, 48], also memory-mapped.
        targets: float32 [N, classes].
        batch_size: Pictures in a batch.
        seed: Seed of order and mixup.
        mixup: Alpha of the Beta distribution that pictures are blended with (Zhang et al. 2017,
            arXiv:1710.09412); 0 blends nothing.
        part: Number of this part of each batch, and of how many equal parts: what one process of
            several is fed.

    Example:
        >>> from ferlib import drawn
        >>> faces = drawn.draw(70)
        >>> feed = Batches(faces.images, targets(faces.labels), batch_size=32)
        >>> len(feed), feed[0][0].shape
        (2, (32, 48, 48, 1))
    """

    def __init__(
        self,
        images: np.ndarray,
        targets: np.ndarray,
        *,
        batch_size: int = 128,
        seed: int = 0,
        mixup: float = 0.0,
        part: tuple[int, int] = (0, 1),
    ):
        super().__init__()
        self.images = images
        self.targets = targets
        self.batch_size = min(batch_size, len(images))
        self.seed = seed
        self.mixup = mixup
        number, parts = part
        size = self.batch_size // parts
        self.part = slice(number * size, (number + 1) * size)
        self.start_epoch(0)

    def start_epoch(self, epoch: int) -> None:
        """Lays out the order of an epoch (0 is the first)."""
        self.epoch = epoch
        self.order = np.random.default_rng([self.seed, epoch]).permutation(len(self.images))

    def __len__(self) -> int:
        return len(self.images) // self.batch_size

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        rows = self.order[index * self.batch_size : (index + 1) * self.batch_size]
        x = self.images[rows][..., None]
        y = self.targets[rows]
        if self.mixup:
            x, y = self._blended(x, y, index)
        return x[self.part], y[self.part]

    def _blended(self, x: Any, y: Any, index: int):
        """Blends each picture of a batch, and its target, with the one before it."""
        rng = np.random.default_rng([self.seed, self.epoch, index])
        share = rng.beta(self.mixup, self.mixup, len(y)).astype("float32")[:, None]
        y = share * y + (1 - share) * np.roll(y, 1, axis=0)
        share = share[..., None, None]
        x = np.rint(share * x + (1 - share) * np.roll(x, 1, axis=0)).astype("uint8")
        return x, y
