"""Train on a blind set: ``python jobs/train.py SET OUTPUT [--epochs N] [--ranks N] [--collective NAME] …``."""

import argparse
import sys
from pathlib import Path

from apbatch.dl.networks.export import to_onnx
from apbatch.dl.training.launch import train
from apbatch.dl.training.spec import TrainSpec
from apbatch.errors import ApbatchError

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("data", type=Path, metavar="SET", help="folder 'set' of a blind analysis")
parser.add_argument("output", type=Path, help="folder for checkpoints, models and predictions")
parser.add_argument("--model", default="talk-cnn")
parser.add_argument("--task", choices=["separation", "showers"], default="separation")
parser.add_argument("--backend", choices=["tensorflow", "torch"], default="tensorflow")
parser.add_argument("--device", choices=["auto", "cpu", "gpu"], default="auto")
parser.add_argument("--treatments", nargs="+", default=["none", "cleaned"], help="treatments of the images")
parser.add_argument("--mixed-precision", action="store_true", help="compute in bfloat16")
parser.add_argument("--stream", action="store_true", help="read training images from disk while training")
parser.add_argument("--symmetric", action="store_true", help="score by the mean over the camera's symmetries")
parser.add_argument("--onnx", action="store_true", help="write model.onnx beside model.keras, verified against it")
parser.add_argument("--epochs", type=int, default=10)
parser.add_argument("--batch-size", type=int, default=64)
parser.add_argument("--seed", type=int, default=1)
parser.add_argument("--collective", choices=["auto", "single", "horovod"], default="auto")
parser.add_argument("--ranks", type=int, default=2)
options = vars(parser.parse_args())
collective, ranks, onnx = options.pop("collective"), options.pop("ranks"), options.pop("onnx")
try:
    trained = train(TrainSpec(**options), collective, ranks)
    if onnx:
        for model in sorted(trained.glob("*/model.keras")):
            to_onnx(model, model.with_suffix(".onnx"))
    print(trained)
except ValueError as error:  # pydantic's, with the name of the option
    parser.error(str(error))
except ApbatchError as error:
    print(f"train: {error}", file=sys.stderr)
    sys.exit(error.status)
