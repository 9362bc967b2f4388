"""Autoregressive models: images pixel by pixel, with an exact likelihood.

autoregressive.py  PixelRNN and PixelCNN, van den Oord et al. 2016; Gated PixelCNN, van den Oord
                   et al. 2016; PixelCNN++, Salimans et al. 2017; PixelSNAIL, Chen et al. 2018; any
                   of them on the codes of a VQ-VAE
"""
