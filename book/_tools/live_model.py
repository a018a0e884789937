"""Make what the site needs to run the recorded ResNet-20 in the reader's browser.

    python book/_tools/live_model.py FOLDER

It writes into FOLDER: `resnet20.onnx`, the network with its
recorded weights; `ort.wasm.min.js`, ONNX Runtime for browsers, which npm fetches; and
`live_model_data.js`, both once more with ten test images, as a script, since a page
that was opened from a disk may load scripts but no other files.
"""

import base64
import gzip
import io
import json
import logging
import shutil
import sys
import warnings
from contextlib import redirect_stdout
from pathlib import Path

BOOK = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(BOOK))

import packages  # noqa: E402
import torch  # noqa: E402
from PIL import Image  # noqa: E402

from support import cifar10  # noqa: E402
from support.files import RESULTS, load_weights  # noqa: E402
from taught import resnet  # noqa: E402
from taught.training import normalise  # noqa: E402

RECORD = "resnet20"
SCRIPT, GLUE, WASM = (
    "ort.wasm.min.js",
    "ort-wasm-simd-threaded.mjs",
    "ort-wasm-simd-threaded.wasm",
)


def main(folder: Path) -> None:
    """Write the three files into `folder`, which must exist."""
    runtime = packages.dist("onnxruntime-web")
    network = folder / f"{RECORD}.onnx"
    export(network)
    data = {
        "model": packed(network.read_bytes()),
        "glue": packed((runtime / GLUE).read_bytes()),
        "wasm": packed((runtime / WASM).read_bytes()),
        "classes": cifar10.CLASSES,
        "samples": samples(),
    }
    (folder / "live_model_data.js").write_text(
        f"window.liveModelData = {json.dumps(data)};\n", encoding="utf-8"
    )
    shutil.copyfile(runtime / SCRIPT, folder / SCRIPT)


class OnStored(torch.nn.Module):
    """A network that takes images as they are stored, and normalises them itself.

    Input: (N, 32, 32, 3), float32 in 0 to 255. Output: logits (N, 10).
    """

    def __init__(self, network: torch.nn.Module):
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.network(normalise(images))


def export(path: Path) -> None:
    """Write the recorded network as ONNX: input `images`, output `logits`."""
    network = resnet.build_model(RECORD)
    load_weights(network, RESULTS / f"{RECORD}.safetensors")
    example = torch.zeros(2, 32, 32, 3)
    logging.disable()  # the exporter tells the developers of PyTorch what it met
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        torch.onnx.export(
            OnStored(network).eval(),
            (example,),
            path,
            dynamo=True,
            external_data=False,
            input_names=["images"],
            output_names=["logits"],
            dynamic_shapes=({0: torch.export.Dim("count")},),
        )


def samples() -> list[dict]:
    """Return the first image of each class of the test sample, as PNG in base64."""
    test = cifar10.load_sample().test
    chosen = []
    for number in range(len(cifar10.CLASSES)):
        place = test.labels.tolist().index(number)
        file = io.BytesIO()
        Image.fromarray(test.images[place]).save(file, format="png")
        chosen.append(
            {
                "label": number,
                "index": int(test.indices[place]),  # in CIFAR-10's test set
                "png": base64.b64encode(file.getvalue()).decode(),
            }
        )
    return chosen


def packed(content: bytes) -> str:
    """Return `content` compressed by gzip, in base64."""
    return base64.b64encode(gzip.compress(content, mtime=0)).decode()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
