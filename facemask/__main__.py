"""Write the .onnx that detection runs beside a .keras model.

python -m facemask mask_detector.keras      writes mask_detector.onnx
"""

import argparse
import sys
from pathlib import Path

from facemask.cli import options
from facemask.cli.run import DONE, run


def export(args: argparse.Namespace) -> int:
    from facemask.models.keras_network import load_keras
    from facemask.training.onnx_export import export_onnx

    network = load_keras(args.model)
    print(f"saved to {export_onnx(network.model, network.info, args.model)}")
    return DONE


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m facemask", description=__doc__, formatter_class=options.HelpFormatter)
    parser.add_argument("model", type=Path, help="model that train_mask_detector.py wrote, .keras")
    return run(export, parser.parse_args(argv))


if __name__ == "__main__":
    sys.exit(main())
