"""How many of the data's modes a model reaches (Srivastava et al. 2017; Lin et al. 2018)."""

import numpy as np


def modes_and_kl(labels, num_modes):
    """For data whose modes are equally frequent, as Stacked MNIST's 1,000.

    Args:
      labels: int [N], the class that a classifier sees in each generated image.
      num_modes: of the data.

    Returns:
      {"modes": classes seen at least once, "kl_nats": KL(generated classes || uniform)}.
    """
    counts = np.bincount(np.asarray(labels), minlength=num_modes)
    shares = counts[counts > 0] / counts.sum()
    return {
        "modes": float(np.count_nonzero(counts)),
        "kl_nats": float(np.sum(shares * np.log(shares * num_modes))),
    }
