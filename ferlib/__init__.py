"""ferlib: teach, train and explain CNNs for facial expression recognition on FER2013.

The package itself imports nothing heavy: the modules that need Keras import it themselves.
"""

__version__ = "0.1.0"
