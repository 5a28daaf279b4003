"""The architectures.

Each takes uint8 pictures [N, 48, 48, 1], does its own resizing and normalisation, and returns
softmax probabilities float32 [N, classes]; the seven of FER2013, in its order, by default.
"""

import inspect
import os
import socket
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ferlib.backend import keras
from ferlib.labels import SIDE

layers = keras.layers
Sizes = Sequence[int]


def classic(
    *,
    classes: int = 7,
    widths: Sizes = (128, 256, 512, 512),
    dense: Sizes = (512, 256),
    dropout: float = 0.4,
) -> keras.Model:
    """Builds the CNN of the tutorials: four blocks of Conv2D, MaxPooling2D and Dropout.

    Args:
        classes: Number of classes.
        widths: Filters of each block.
        dense: Units of the dense layers after Flatten.
        dropout: Share dropped after each block and dense layer.

    Returns:
        A model with about 4.2 million parameters at the defaults.
    """
    images = keras.Input((SIDE, SIDE, 1), dtype="uint8", name="images")
    x = layers.Rescaling(1 / 255)(images)
    for width in widths:
        x = layers.Conv2D(width, 3, activation="relu")(x)
        x = layers.MaxPooling2D()(x)
        x = layers.Dropout(dropout)(x)
    x = layers.Flatten()(x)
    for units in dense:
        x = layers.Dense(units, activation="relu")(x)
        x = layers.Dropout(dropout)(x)
    return keras.Model(images, _softmax(x, classes), name="classic")


def vgg(
    *,
    classes: int = 7,
    widths: Sizes = (32, 64, 128, 256),
    convs: Sizes = (),
    stem: int = 0,
    flatten: bool = False,
    dropout: float = 0.3,
    crop: int = 44,
) -> keras.Model:
    """Builds a plain network of pairs of 3x3 convolutions with batch normalisation.

    The form of Simonyan and Zisserman 2014 (arXiv:1409.1556), which Pramerdorfer and Kampel 2016
    (arXiv:1612.02903) found as good as any other for FER2013, with global pooling in place of
    the dense layers. Each picture is normalised to mean 0 and variance 1, so that light and
    contrast matter little. The centre of the picture is used: in training, random shifts make
    that a random crop.

    Args:
        classes: Number of classes.
        widths: Filters of each stage; each stage after the first halves the resolution.
        convs: Convolutions in each stage; without any, two.
        stem: Filters of one convolution before the stages that halves the resolution; 0 is none.
        flatten: Whether the classifier sees each place of the last map, not their mean.
        dropout: Share dropped before the classifier.
        crop: Side of the centre that is used, in pixels.

    Returns:
        A model with about 1.18 million parameters at the defaults.

    Example:
        >>> vgg().count_params()
        1176359
    """
    images, x = _normalised(crop)
    if stem:
        x = _conv_norm(x, stem, strides=2, activation="relu")
    for stage, width in enumerate(widths):
        if stage:
            x = layers.MaxPooling2D()(x)
        for _ in range(convs[stage] if convs else 2):
            x = _conv_norm(x, width, activation="relu")
    x = layers.Flatten()(x) if flatten else layers.GlobalAveragePooling2D()(x)
    x = layers.Dropout(dropout)(x)
    return keras.Model(images, _softmax(x, classes), name="vgg")


def residual(
    *,
    classes: int = 7,
    widths: Sizes = (32, 64, 128, 256),
    blocks: int = 1,
    dropout: float = 0.3,
    squeeze: bool = True,
    halve: bool = True,
    crop: int = 44,
) -> keras.Model:
    """Builds a small residual network with squeeze-and-excitation and global pooling.

    He et al. 2015 (arXiv:1512.03385) with the squeeze-and-excitation of Hu et al. 2017
    (arXiv:1709.01507). It halves the resolution after its first convolution, so it computes a third
    as much as `vgg` with as many parameters.

    Args:
        classes: Number of classes.
        widths: Filters of the stages; each stage after the first halves the resolution.
        blocks: Residual blocks in each stage.
        dropout: Share dropped before the classifier.
        squeeze: Whether blocks weigh their channels by squeeze-and-excitation.
        halve: Whether the resolution is halved before the first stage; without, four times the
            computing.
        crop: Side of the centre that is used, in pixels.

    Returns:
        A model with about 1.25 million parameters at the defaults.
    """
    images, x = _normalised(crop)
    x = _conv_norm(x, 32, activation="relu")
    if halve:
        x = layers.MaxPooling2D()(x)
    for stage, width in enumerate(widths):
        for block in range(blocks):
            halves = stage > 0 and block == 0
            x = _residual(x, width, strides=2 if halves else 1, squeeze=squeeze)
    x = layers.GlobalAveragePooling2D()(x)
    x = layers.Dropout(dropout)(x)
    return keras.Model(images, _softmax(x, classes), name="residual")


def _normalised(crop: int):
    """Begins a model: uint8 pictures, and their centre at mean 0 and variance 1."""
    images = keras.Input((SIDE, SIDE, 1), dtype="uint8", name="images")
    x = layers.Rescaling(1 / 255)(images)
    if crop < SIDE:
        low = (SIDE - crop) // 2
        margins = (low, SIDE - crop - low)
        x = layers.Cropping2D((margins, margins))(x)
    x = layers.LayerNormalization(axis=(1, 2, 3), center=False, scale=False)(x)
    return images, x


def _conv_norm(x, width, *, size=3, strides=1, activation=None):
    """Adds a convolution and batch normalisation."""
    x = layers.Conv2D(width, size, strides=strides, padding="same", use_bias=False)(x)
    x = layers.BatchNormalization(momentum=0.9)(x)
    if activation:
        x = layers.Activation(activation)(x)
    return x


def _residual(x: Any, width: int, *, strides: int, squeeze: bool):
    """Adds a residual block."""
    y = _conv_norm(x, width, strides=strides, activation="relu")
    y = _conv_norm(y, width)
    if squeeze:
        weight = layers.GlobalAveragePooling2D(keepdims=True)(y)
        weight = layers.Dense(max(width // 8, 4), activation="relu")(weight)
        weight = layers.Dense(width, activation="sigmoid")(weight)
        y = layers.Multiply()([y, weight])
    if strides > 1:
        x = layers.AveragePooling2D(strides, padding="same")(x)
    if x.shape[-1] != width:
        x = _conv_norm(x, width, size=1)
    return layers.Activation("relu")(layers.Add()([x, y]))


def _softmax(x: Any, classes: int):
    """Ends a model: logits, then softmax, in float32 under any precision policy."""
    x = layers.Dense(classes, dtype="float32", name="logits")(x)
    return layers.Activation("softmax", dtype="float32", name="probabilities")(x)


BACKBONES = {
    "VGG16": ("caffe", "block5_conv1"),
    "VGG19": ("caffe", "block5_conv1"),
    "ResNet50": ("caffe", "conv5_block1_1_conv"),
    "MobileNet": ("tf", "conv_dw_12"),
    "MobileNetV2": ("tf", "block_13_expand"),
    "MobileNetV3Small": ("none", "expanded_conv_8_expand"),
    "EfficientNetV2B0": ("none", "block6a_expand_conv"),
    "DenseNet121": ("torch", "conv5_block1_0_bn"),
}
"""Backbone from keras.applications -> its preprocessing, and the top block's first layer."""

_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PREPROCESSING = {
    "none": (1.0, 0.0),
    "tf": (1 / 127.5, -1.0),
    "caffe": ([1.0] * 3, [-103.939, -116.779, -123.68]),
    "torch": (
        [1 / (255 * std) for std in _IMAGENET_STD],
        [-mean / std for mean, std in zip(_IMAGENET_MEAN, _IMAGENET_STD, strict=True)],
    ),
}
"""What keras.applications' `preprocess_input` does in each of its modes, scale and offset. A grey
picture is the same in RGB and BGR. "none": 0 to 255, the backbone does the rest itself."""


def transfer(
    backbone: str,
    *,
    classes: int = 7,
    weights: str | Path = "",
    size: int = 96,
    preprocessing: str = "",
    trained: str = "head",
    dropout: float = 0.5,
) -> keras.Model:
    """Builds a classifier of grey 48x48 pictures on a network of keras.applications.

    Args:
        backbone: One of `BACKBONES`.
        classes: Number of classes.
        weights: "imagenet" (downloaded once by Keras), a weights file of the backbone without
            its top, or "" for random weights.
        size: Side to which pictures are enlarged, in pixels, at least 32.
        preprocessing: One of `PREPROCESSING`, for weights that were trained with another than
            the backbone's own, which "" takes.
        trained: What training may change, see `unfreeze`.
        dropout: Share of the pooled features dropped before the classifier.

    Returns:
        The model; its pooled features are the output of the layer named "features".

    Raises:
        ValueError: If there is no such backbone or preprocessing, or the file's weights are not
            this backbone's.
        FileNotFoundError: If the weights file is not there or cannot be downloaded.

    Example:
        >>> transfer("MobileNet", size=32).get_layer("features").output.shape
        (None, 1024)
    """
    for given, known in ((backbone, BACKBONES), (preprocessing or "none", PREPROCESSING)):
        if given not in known:
            raise ValueError(f"{given!r} is unknown; known are {', '.join(known)}.")
    scale, offset = PREPROCESSING[preprocessing or BACKBONES[backbone][0]]
    images = keras.Input((SIDE, SIDE, 1), dtype="uint8", name="images")
    x = layers.Concatenate()([images] * 3)
    x = layers.Rescaling(scale, offset)(x)
    if size != SIDE:
        x = layers.Resizing(size, size)(x)
    x = _backbone(backbone, weights, size)(x)
    x = layers.GlobalAveragePooling2D(name="features")(x)
    x = layers.Dropout(dropout)(x)
    model = keras.Model(images, _softmax(x, classes), name=backbone)
    unfreeze(model, trained)
    return model


def _backbone(name: str, weights: str | Path, size: int):
    """Builds a network of keras.applications without its top, and fills in its weights."""
    if weights not in ("", "imagenet") and not Path(weights).is_file():
        raise FileNotFoundError(f"There is no weights file {weights} for {name}.")
    builder = getattr(keras.applications, name)
    patience = socket.getdefaulttimeout()
    socket.setdefaulttimeout(15)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "`input_shape` is undefined")
            return builder(
                include_top=False, weights=str(weights) or None, input_shape=(size, size, 3)
            )
    except Exception as error:
        if weights == "imagenet" and ("http" in str(error) or isinstance(error, OSError)):
            folder = Path(os.environ.get("KERAS_HOME", "~/.keras")).expanduser() / "models"
            raise FileNotFoundError(
                f"The ImageNet weights of {name} cannot be downloaded ({error}). Put the file into "
                f"{folder}, where Keras looks for it, or elsewhere and give weights=FILE; "
                'weights="" are random weights, which is not transfer learning.'
            ) from error
        detail = str(error).strip().splitlines()[0]
        raise ValueError(
            f"{name} cannot be built at {size} pixels with weights={str(weights)!r}: {detail}"
        ) from error
    finally:
        socket.setdefaulttimeout(patience)


def unfreeze(model: keras.Model, part: str) -> None:
    """Says which part of a transfer model training may change; its classifier always may.

    Args:
        model: What `transfer` built.
        part: "head", only the classifier; "top", the backbone's top block as well; "all", the
            whole backbone; or the name of the first of the backbone's layers. In all of these
            BatchNormalization stays as the backbone's weights have it. "scratch" is everything
            with BatchNormalization, for random weights.

    Raises:
        ValueError: If the backbone has no such layer.

    Example:
        >>> model = transfer("MobileNet", size=32)
        >>> len(model.trainable_weights)
        2
        >>> unfreeze(model, "all")
        >>> len(model.trainable_weights)
        29
    """
    backbone = next(layer for layer in model.layers if isinstance(layer, keras.Model))
    names = [layer.name for layer in backbone.layers]
    known = {"all": names[0], "scratch": names[0], "top": BACKBONES[model.name][1]}
    first = known.get(part, part)
    if part != "head" and first not in names:
        raise ValueError(
            f'{part!r} is no part of {model.name}: give "head", "top", "all", "scratch" or the '
            "name of a layer."
        )
    start = len(names) if part == "head" else names.index(first)
    for number, layer in enumerate(backbone.layers):
        kept = part != "scratch" and isinstance(layer, layers.BatchNormalization)
        layer.trainable = number >= start and not kept


BUILDERS = {"classic": classic, "vgg": vgg, "residual": residual, "transfer": transfer}
"""Name -> function that builds a model."""


def build(name: str, *, classes: int = 7, **options: Any) -> keras.Model:
    """Builds a model by name, with new weights.

    Args:
        name: One of `BUILDERS`.
        classes: Number of classes.
        **options: What the builder takes.

    Returns:
        The model: uint8 [N, 48, 48, 1] in, float32 [N, classes] out.

    Raises:
        ValueError: If there is no such model, or it has no such options.

    Example:
        >>> build("vgg", classes=3, widths=(8, 8)).output_shape
        (None, 3)
    """
    if name not in BUILDERS:
        raise ValueError(f"There is no model {name!r}; known are {', '.join(BUILDERS)}.")
    builder = BUILDERS[name]
    try:
        inspect.signature(builder).bind(classes=classes, **options)
    except TypeError as error:
        raise ValueError(f"{name} cannot be built with options {options}: {error}.") from error
    return builder(classes=classes, **options)
