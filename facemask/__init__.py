"""Find faces and classify their masks: what the scripts share."""

__version__ = "2.0.0"
