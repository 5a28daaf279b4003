"""What a model looks at: class activation maps, and the features before its last layer."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from ferlib import runtimes, zoo
from ferlib.backend import keras


def _open(model: Any):
    """Opens a model that has layers to look into."""
    opened = runtimes.open_model(model)
    if opened.keras_model is None:
        raise ValueError(f"{opened.name} is no Keras model; only those show their layers.")
    return opened


def _trace(model: Any) -> tuple[keras.KerasTensor, list]:
    """Copies a model and calls it layer by layer, also inside nested models.

    Returns:
        The copy's input and, in the order of the calls, (layer, input, output) of each layer.
    """

    def call(layer: Any, x: Any, *args: Any, **kwargs: Any):
        if isinstance(layer, keras.Sequential):
            for inner in layer.layers:
                x = call(inner, x)
            return x
        if isinstance(layer, keras.Model):
            x = keras.tree.pack_sequence_as(layer.input, keras.tree.flatten(x))
            keras.models.clone_model(layer, x, clone_function=lambda y: y, call_function=call)
        else:
            calls.append((layer, x, layer(x, *args, **kwargs)))
        return calls[-1][2]

    calls = []
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    inputs = keras.Input(copy.input_shape[1:], dtype=copy.inputs[0].dtype)
    call(copy, inputs)
    return inputs, calls


def _cut(model: Any) -> tuple[keras.Model, keras.Model]:
    """Cuts a CNN in two after its last feature map of 5 x 5 or more (else after its last).

    The second part ends at the logits where a layer is called so, else at the logarithm of the
    probabilities.
    """
    inputs, calls = _trace(model)
    logits = [y for layer, _, y in calls if layer.name == "logits"]
    scores = logits[-1] if logits else keras.ops.log(calls[-1][2] + 1e-7)
    framed = keras.layers.ZeroPadding2D  # its maps would be shifted
    maps = [y for layer, _, y in calls if not isinstance(layer, framed) and len(y.shape) == 4]
    for features in sorted(maps, key=lambda y: min(y.shape[1], 5))[::-1]:
        try:
            return keras.Model(inputs, features), keras.Model(features, scores)
        except ValueError:  # a shortcut leads past this map
            continue
    raise ValueError(f"{model.name} has no feature map that all of it goes through.")


def gradcam(
    model: runtimes.Model, images: np.ndarray, labels: np.ndarray | None = None
) -> np.ndarray:
    """Shows which parts of pictures speak for an answer (Grad-CAM, in the form of HiResCAM).

    Each place of the last feature map counts with its own gradient. Where global average pooling
    follows the map, as in `models.vgg`, that is Grad-CAM itself; where Flatten follows, as in
    `models.classic`, it stays true to the places that the answer depends on, which Grad-CAM's
    mean gradient does not. An ensemble's map is the mean of its members'.

    Args:
        model: A CNN (Keras Functional or Sequential, nested or not), a file, a shipped name, or
            what `runtimes.open_model` gave.
        images: uint8 [N, H, W].
        labels: int [N], the answers to explain. None explains the model's own.

    Returns:
        float32 [N, H, W], at most 1 in each picture; 0 where nothing speaks for the answer.

    Raises:
        ValueError: If the model has no convolutional feature map, or is none of Keras.

    Example:
        >>> from ferlib import drawn, explain
        >>> faces = drawn.draw(21)
        >>> explain.gradcam("tiny", faces.images[:2]).shape
        (2, 48, 48)

    Source: Selvaraju et al., Grad-CAM (2017); Draelos and Carin, Use HiResCAM instead of Grad-CAM
    for faithful explanations of convolutional neural networks (2020).
    """
    opened = _open(model)
    members = zoo.members(opened.keras_model)
    if len(members) > 1:
        labels = opened(images).argmax(axis=1) if labels is None else labels
        return np.mean([gradcam(member, images, labels) for member in members], axis=0)
    front, head = _cut(opened.keras_model)
    heat = np.empty(images.shape[:3], "float32")
    for start in range(0, len(images), 64):
        part = slice(start, start + 64)
        inputs = keras.ops.convert_to_tensor(opened.adapt(images[part]))
        features = front(inputs, training=False)
        scores = keras.ops.convert_to_numpy(head(features, training=False))
        answers = scores.argmax(axis=1) if labels is None else labels[part]
        chosen = np.eye(scores.shape[1], dtype="float32")[answers]
        gradient = _gradient(head, features, chosen)
        cams = keras.ops.relu(keras.ops.sum(features * gradient, axis=3))
        for place, cam in zip(heat[part], keras.ops.convert_to_numpy(cams), strict=True):
            place[:] = cv2.resize(cam, place.shape[::-1])
    top = heat.max(axis=(1, 2), keepdims=True)
    return heat / np.where(top > 0, top, 1)


def _gradient(head: Any, features: Any, chosen: np.ndarray):
    """Gradient of `sum(head(features) * chosen)` for the features, on any backend of Keras."""

    def score(x: Any):
        return keras.ops.sum(keras.ops.multiply(head(x, training=False), chosen))

    if keras.backend.backend() == "jax":
        import jax

        return jax.grad(score)(features)
    if keras.backend.backend() == "torch":
        import torch

        features = features.detach().requires_grad_()
        return torch.autograd.grad(score(features), features)[0]
    import tensorflow as tf

    with tf.GradientTape() as tape:
        tape.watch(features)
        total = score(features)
    return tape.gradient(total, features)


def embed(model: runtimes.Model, images: np.ndarray) -> np.ndarray:
    """Gives the output of a model's penultimate layer: what its last Dense layer gets to see.

    The features of an ensemble's members stand side by side.

    Args:
        model: A Keras model, a file, a shipped model's name, or what `runtimes.open_model` gave.
        images: uint8 [N, 48, 48].

    Returns:
        float32 [N, D].

    Raises:
        ValueError: If the model is none of Keras.

    Example:
        >>> from ferlib import drawn, explain
        >>> explain.embed("tiny", drawn.draw(21).images).shape
        (21, 128)
    """
    opened = _open(model)
    members = zoo.members(opened.keras_model)
    if len(members) > 1:
        return np.hstack([embed(member, images) for member in members])
    inputs, calls = _trace(opened.keras_model)
    last = [x for layer, x, _ in calls if isinstance(layer, keras.layers.Dense)][-1]
    features = keras.Model(inputs, last)
    return features.predict(opened.adapt(np.asarray(images)), verbose=0)
