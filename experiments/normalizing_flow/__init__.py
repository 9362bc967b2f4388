"""Normalizing flows: invertible networks with an exact likelihood, sampled in one pass.

normalizing_flow.py  RealNVP, Dinh et al. 2017; Glow, Kingma & Dhariwal 2018; TarFlow, Zhai et al.
                     2024; MAF, Papamakarios et al. 2017; IAF, Kingma et al. 2016
noise.py             dequantisation, uniform or learnt (Ho et al. 2019); Gaussian noise
pictures.py          interpolations, temperatures, reconstructions, scales drawn again
"""
