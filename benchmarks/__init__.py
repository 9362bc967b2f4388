"""Benchmarks: speed, and agreement with other people's implementations.

A speed is given as a ratio of two things that take turns in one run on one machine.

  *_keras.py      our train step and the tutorial's model in Keras, whose workers keras_*.py run in
                  an interpreter with TensorFlow; keras_comparison.py is what they share
  *_torch.py      the same for PyTorch, with the worker torch_style.py
  *_reference.py  equal numbers from diffusers, torch-fidelity, pytorch-fid, torchmetrics, prdc
  loop.py, startup.py, utilisation.py, smokes.py, accelerator.py
                  costs of the loop, of starting, of every config
  fd_steps.py, floor.py, sampler_order.py, style_optimizers.py, adain_speed.py
                  numbers of the README
  families_sheet.py, style_sheet.py
                  pictures of the README
"""
