"""The face detectors' files, and how ours was trained (face_detector/README.md)."""
