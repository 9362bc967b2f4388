"""Generative adversarial networks.

gan.py           Goodfellow et al. 2014, with the networks of DCGAN (Radford et al. 2016), SNGAN
                 (Miyato et al. 2018) and R3GAN (Huang et al. 2024)
losses.py        the losses of both networks
updates.py       their updates, of which a step consists
config.py        the fields of a config
figures.py       walks between latents, grids of classes
penalties.py     R1 and R2 (Mescheder et al. 2018), WGAN-GP (Gulrajani et al. 2017), LeCam (Tseng
                 et al. 2021), spectral normalisation (Miyato et al. 2018)
augmentation.py  DiffAugment (Zhao et al. 2020), ADA (Karras et al. 2020)
"""
