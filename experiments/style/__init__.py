"""Style transfer: the content of one picture in the style of another.

style_transfer.py  the picture is optimised: Gatys et al. 2016; other statistics of a style by
                   Li et al. 2017, Dowson & Landau 1982, Kolkin et al. 2019
picture_loss.py    its loss for a content and its styles
sizes.py           from coarse to fine: a run for each size
adain.py           any style in one pass: Huang & Belongie 2017
wct.py             whitening and colouring, nothing is trained: Li et al. 2017
feedforward.py     a network for one style: Johnson et al. 2016, Ulyanov et al. 2016
frozen_vgg.py      the VGG of all of them, which no step changes: Simonyan & Zisserman 2015
pair.py            the two pictures, and the file of the result
stylize.py         what the ways without optimisation share: pictures in, stylised picture out
"""
