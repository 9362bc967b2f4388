"""Image classifiers, which are also the feature nets of the metrics.

classifier.py  the networks of LeCun et al. 1998 (small convolutional ones), He et al. 2016 (ResNet)
               and Jordan 2024 (the CIFAR-10 speed run), with its views in evaluation
"""
