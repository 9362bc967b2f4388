"""The discretised mixture of logistics (Salimans et al. 2017, PixelCNN++, sections 2.1 and 2.2).

For one pixel x in [-1, 1]^C, with M components:

  p(x) = sum_m pi_m prod_c [ S((x_c + 1/(L-1) - mu_mc) / s_mc) - S((x_c - 1/(L-1) - mu_mc) / s_mc) ]

where S is the logistic function, L the number of levels, the lowest and highest level reach to
-inf and inf, and the colours are coupled through their means, linear in the colours before:

  mu_g = m_g + a x_r,    mu_b = m_b + b x_r + c x_g.

`params` is [..., P]: M logits, then for each colour M means and M log-scales, then for three
colours M each of a, b and c before their tanh.
"""

import jax
import jax.numpy as jnp

from genjax import rng

MIN_LOG_SCALE = -7.0


def num_params(components, channels):
    """P; 10 M for three colours."""
    return components * (1 + 2 * channels + channels * (channels - 1) // 2)


def log_prob(x, params, levels=256):
    """log p(x) in nats of each pixel, joint over its colours.

    Args:
      x: [..., C] in [-1, 1], at 2 k / (levels - 1) - 1.
      params: [..., P].

    Returns:
      [...].
    """
    channels = x.shape[-1]
    logits, means, log_scales, coupling = _split(params, channels)
    means = _coupled(x[..., None, :], means, coupling)
    half = 1.0 / (levels - 1)
    inverse = jnp.exp(-log_scales)
    centred = x[..., None, :] - means
    upper, lower = inverse * (centred + half), inverse * (centred - half)
    x = x[..., None, :]
    # S(u) - S(l) = (1 - e^(l - u)) S(u) S(-l): no difference of nearly equal numbers.
    within = jax.nn.log_sigmoid(upper) + jax.nn.log_sigmoid(-lower)
    within += jnp.log(-jnp.expm1(-2 * half * inverse))
    log_mass = jnp.where(
        x < -1 + half,
        jax.nn.log_sigmoid(upper),
        jnp.where(x > 1 - half, jax.nn.log_sigmoid(-lower), within),
    )
    return jax.nn.logsumexp(jax.nn.log_softmax(logits) + jnp.sum(log_mass, -1), -1)


def sample(keys, params, channels=3, levels=256, temperature=1.0):
    """x [B, ..., C] in [-1, 1] at the levels, row i of keys[i]; params [B, ..., P]."""
    uniforms = rng.uniform(keys, (*params.shape[1:-1], 1 + channels))
    return from_uniforms(uniforms, params, levels, temperature)


def from_uniforms(uniforms, params, levels=256, temperature=1.0):
    """x [..., C] by inverting the distribution functions: [..., 1 + C] uniforms, params [..., P].

    `temperature` divides the logits and multiplies the scales.
    """
    channels = uniforms.shape[-1] - 1
    logits, means, log_scales, coupling = _split(params, channels)
    cumulative = jnp.cumsum(jax.nn.softmax(logits / temperature), -1)
    chosen = jnp.sum(uniforms[..., :1] >= cumulative[..., :-1], -1)
    pick = lambda a: jnp.take_along_axis(a, chosen[..., None, None], -2)[..., 0, :]
    means, log_scales, coupling = pick(means), pick(log_scales), pick(coupling)
    u = jnp.clip(uniforms[..., 1:], 1e-6, 1 - 1e-6)
    noise = temperature * jnp.exp(log_scales) * (jnp.log(u) - jnp.log1p(-u))
    x = jnp.zeros_like(means)
    for c in range(channels):
        value = _coupled(x, means, coupling)[..., c] + noise[..., c]
        level = jnp.round((jnp.clip(value, -1, 1) + 1) * ((levels - 1) / 2))
        x = x.at[..., c].set(2 * level / (levels - 1) - 1)
    return x


def _split(params, channels):
    """logits [..., M], means and log-scales [..., M, C], coupling [..., M, C (C - 1) / 2]."""
    if channels not in (1, 3):
        raise ValueError(f"a pixel has 1 or 3 colours, not {channels}")
    components = params.shape[-1] // num_params(1, channels)
    logits, rest = params[..., :components], params[..., components:]
    rest = jnp.swapaxes(rest.reshape(*rest.shape[:-1], -1, components), -1, -2)
    means, log_scales = rest[..., :channels], rest[..., channels : 2 * channels]
    log_scales = jnp.maximum(log_scales, MIN_LOG_SCALE)
    return logits, means, log_scales, jnp.tanh(rest[..., 2 * channels :])


def _coupled(x, means, coupling):
    """The means [..., C], given the colours before."""
    if means.shape[-1] == 1:
        return means
    red, green = x[..., 0], x[..., 1]
    a, b, c = (coupling[..., k] for k in range(3))
    m_r, m_g, m_b = (means[..., k] for k in range(3))
    return jnp.stack([m_r + 0 * a, m_g + a * red, m_b + b * red + c * green], -1)
