"""Diffusion models, flow matching, and images in one step.

diffusion.py   DDPM, Ho et al. 2020; EDM, Karras et al. 2022; flow matching, Lipman et al. 2023
one_step.py    mean flows, Geng et al. 2025; consistency training, Song et al. 2023
tasks.py       what a trained model does besides new images: edits (SDEdit, Meng et al. 2022),
               inpainting (DDNM, Wang et al. 2023), inversion (DDIM, Song et al. 2021a)
denoisers.py   what these models share: processes, networks, classes
pretrained.py  parameters of other runs and of published files
"""
