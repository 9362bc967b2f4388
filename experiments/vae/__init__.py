"""Variational autoencoders.

vae.py      Kingma & Welling 2014, Rezende et al. 2014; the IWAE bound of Burda et al. 2016;
            VampPrior of Tomczak & Welling 2018
vdvae.py    deep hierarchical VAEs, Child 2021
vqvae.py    van den Oord et al. 2017; its codes are the data of an autoregressive prior
priors.py   p(z): a standard normal, a mixture of normals, a VampPrior
latents.py  pictures of a latent space
"""
