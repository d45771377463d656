"""Write the .onnx that detection runs beside a .keras model.

python -m facemask mask_detector.keras      writes mask_detector.onnx
"""

import argparse
import sys
from pathlib import Path

from facemask.cli import run as cli


def export(args: argparse.Namespace) -> int:
    from facemask.training.fit import export_onnx, load_keras

    network = load_keras(args.model)
    print(f"saved to {export_onnx(network.model, network.info, args.model)}")
    return cli.DONE


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m facemask", description=__doc__, formatter_class=cli.HelpFormatter)
    parser.add_argument("model", type=Path, help="model that train_mask_detector.py wrote, .keras")
    return cli.run(export, parser.parse_args(argv))


if __name__ == "__main__":
    sys.exit(main())
