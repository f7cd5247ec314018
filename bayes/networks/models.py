"""Ready-made networks."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import nn

from kernels.checks import check_choice, check_int

from .._validation import check_sequence, check_size
from .activations import ACTIVATIONS, Activation
from .network import BayesianNetwork

BYTES = 4
"""Of a weight of a module."""


class MLP(BayesianNetwork):
    """Dense layers with an activation in between.

    Parameters
    ----------
    n_inputs : int
        D.
    hidden : sequence of int
        Width of each hidden layer; may be empty (a linear model).
    n_outputs : int
    activation : str
        One of `ACTIVATIONS`: tanh, relu, erf, cos, sin, rbf, softplus, swish, linear.
    fan_in_scaling : bool
        See `BayesianNetwork`.

    Examples
    --------
    >>> MLP(13, [100], 1, activation="tanh").n_weights
    1501
    """

    def __init__(
        self,
        n_inputs: int,
        hidden: Sequence[int],
        n_outputs: int = 1,
        *,
        activation: str = "tanh",
        fan_in_scaling: bool = True,
    ) -> None:
        check_choice("activation", activation, tuple(ACTIVATIONS))
        widths = [check_size("n_inputs", n_inputs, 1, BYTES)]
        for width in check_sequence("hidden", hidden, "int, a width a layer"):
            widths.append(check_size("hidden", width, 1, BYTES * widths[-1]))
        n_outputs = check_size("n_outputs", n_outputs, 1, BYTES * widths[-1])
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [nn.Linear(before, after), Activation(activation)]
        layers.append(nn.Linear(widths[-1], n_outputs))
        super().__init__(nn.Sequential(*layers), fan_in_scaling=fan_in_scaling)


class ConvNet(BayesianNetwork):
    """3 x 3 convolutions, each followed by an activation and 2 x 2 average pooling, then dense.

    Parameters
    ----------
    image_shape : tuple of int
        (C, H, W); X has rows of C * H * W numbers.
    channels : sequence of int
        Of each convolution; the image is halved as often.
    n_outputs : int
    activation : str
        One of `ACTIVATIONS`.
    fan_in_scaling : bool
        See `BayesianNetwork`.

    Examples
    --------
    >>> import torch
    >>> net = ConvNet((1, 8, 8), [8, 16], 10)
    >>> net(torch.zeros(4, net.n_weights), torch.zeros(5, 64)).shape
    torch.Size([4, 5, 10])
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        channels: Sequence[int],
        n_outputs: int,
        *,
        activation: str = "relu",
        fan_in_scaling: bool = True,
    ) -> None:
        check_choice("activation", activation, tuple(ACTIVATIONS))
        sides = check_sequence("image_shape", image_shape, "int, (C, H, W)")
        if len(sides) != 3:
            raise ValueError(f"The 'image_shape' parameter must be (C, H, W); got {image_shape!r}.")
        before, height, width = (check_size("image_shape", n, 1, BYTES) for n in sides)
        check_int("n_outputs", n_outputs, 1)
        channels = check_sequence("channels", channels, "int, one a convolution")
        layers: list[nn.Module] = [nn.Unflatten(1, (before, height, width))]
        for after in channels:
            after = check_size("channels", after, 1, 9 * BYTES * before)
            layers += [
                nn.Conv2d(before, after, 3, padding=1),
                Activation(activation),
                nn.AvgPool2d(2),
            ]
            before, height, width = after, height // 2, width // 2
        if not height * width:
            raise ValueError(
                f"The 'channels' parameter must halve the image at most until it is one pixel; "
                f"got {len(channels)} convolutions for an image of {image_shape}."
            )
        n_features = before * height * width
        check_size("n_outputs", n_outputs, 1, BYTES * n_features)
        layers += [nn.Flatten(), nn.Linear(n_features, n_outputs)]
        super().__init__(nn.Sequential(*layers), fan_in_scaling=fan_in_scaling)
