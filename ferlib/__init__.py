"""ferlib: teach, train and explain CNNs for facial expression recognition on FER2013.

The package itself imports nothing heavy: the modules that need Keras import it themselves.
"""

import os

# TensorFlow's C++ messages would bury what a notebook prints; set before TensorFlow is imported.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# From 1.29 on onnxruntime writes an id into the home and sends reports to its makers.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__version__ = "0.2.0"
