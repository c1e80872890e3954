"""The readable second judge: every RWKV version in plain numpy, the equations beside the code.

Start with `rwkv_v7.py`. `model.load(path)` opens a ggmf file and computes its logits,
`block_types` quantises and multiplies as the engine must, `ggmf` reads and writes files,
`synth` makes random checkpoints of every version.
"""
