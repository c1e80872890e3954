"""What rwkv.cpp's converter and quantiser write, said again with torch and gguf.

Two steps, as its users take them: `write_float` makes an FP16 (or FP32) file of a state_dict,
`quantize_file` makes a quantised file of that. Written from a description of their behaviour.
"""

import struct
from pathlib import Path

import gguf
import numpy as np
import torch

FLOAT_NUMBERS = {torch.float32: 0, torch.float16: 1}
QUANTIZED_NUMBERS = {"q4_0": 2, "q4_1": 3, "q5_0": 7, "q5_1": 8, "q8_0": 9}
LOW_RANK = ("w1", "w2", "a1", "a2", "v1", "v2", "g1", "g2")


def last_part(name: str) -> str:
    return name.rpartition(".")[2]


def write_float(state: dict[str, torch.Tensor], path: Path, *, half: bool) -> None:
    """Step one: the changes to single tensors, and fp16 for what it calls large matrices."""
    layers = sum(1 for name in state if name.endswith(".ln1.weight"))
    vocab, width = state["emb.weight"].shape
    v7 = "blocks.0.att.k_k" in state
    v6 = "blocks.0.att.time_maa_x" in state
    v5 = "blocks.0.att.ln_x.weight" in state and not v6 and not v7
    v5_2 = v5 and "blocks.0.att.gate.weight" in state
    if v7:
        state = join_x(state)
    with path.open("wb") as file:
        file.write(struct.pack("<6i", 0x67676D66, 101, vocab, width, layers, int(half)))
        for name, tensor in state.items():
            x = tensor.float()
            part = last_part(name)
            if ".time_" in name:
                x = x.squeeze()
            if v7:
                x = x.t() if part in LOW_RANK else x
            elif v6:
                if part in ("time_maa_w1", "time_decay_w1", "time_decay_w2"):
                    x = x.t()
                elif part == "time_maa_w2":
                    x = x.transpose(1, 2)
                elif part == "time_faaaa":
                    x = x.unsqueeze(-1)
                elif part == "time_decay":
                    x = x.reshape(state["blocks.0.att.time_faaaa"].shape[0], -1, 1)
            elif v5:
                if part == "time_decay":
                    x = torch.exp(-torch.exp(x))
                    x = x.unsqueeze(-1) if v5_2 else x.reshape(-1, 1, 1)
                elif part == "time_first":
                    x = torch.exp(x).reshape(-1, 1, 1)
                elif part == "time_faaaa":
                    x = x.unsqueeze(-1)
            elif part == "time_decay":
                x = -torch.exp(x)
            small = x.dim() < 2 or ".time_" in name
            small |= v7 and part in ("x_rwkvag", "k_k", "k_a", "r_k", "x_k", "w0", "a0", "v0")
            x = x.half() if half and not small else x
            write_tensor(file, name, x.shape, FLOAT_NUMBERS[x.dtype], x.contiguous().numpy())


def join_x(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    result: dict[str, torch.Tensor] = {}
    for name, tensor in state.items():
        if ".att.x_" in name:
            joined = name.rpartition(".")[0] + ".x_rwkvag"
            result[joined] = torch.cat([*([result[joined]] if joined in result else []), tensor])
        else:
            result[name] = tensor
    return result


def quantize_file(source: Path, path: Path, type: str) -> None:
    """Step two: every 2-D tensor, whatever its name, but for a few names."""
    data = source.read_bytes()
    header = list(struct.unpack_from("<6i", data))
    header[1], header[5] = 101, QUANTIZED_NUMBERS[type]
    at = 24
    with path.open("wb") as file:
        file.write(struct.pack("<6i", *header))
        while at < len(data):
            dims, key_length, number = struct.unpack_from("<3i", data, at)
            shape = struct.unpack_from(f"<{dims}i", data, at + 12)[::-1]
            at += 12 + 4 * dims
            name = data[at : at + key_length].decode()
            at += key_length
            dtype = np.dtype("<f2" if number == 1 else "<f4")
            values = np.frombuffer(data, dtype, int(np.prod(shape)), at).reshape(shape)
            at += values.nbytes
            kept = name in ("emb.weight", "head.weight") or last_part(name) in (*LOW_RANK, "r_k")
            if dims == 2 and not kept:
                kind = gguf.GGMLQuantizationType[type.upper()]
                values = gguf.quants.quantize(values.astype(np.float32), kind)
                number = QUANTIZED_NUMBERS[type]
            write_tensor(file, name, shape, number, values)


def write_tensor(file, name: str, shape, number: int, data: np.ndarray) -> None:
    key = name.encode()
    file.write(struct.pack("<3i", len(shape), len(key), number))
    file.write(struct.pack(f"<{len(shape)}i", *reversed(shape)))
    file.write(key)
    file.write(np.ascontiguousarray(data).tobytes())
