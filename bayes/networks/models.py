"""Ready-made networks."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import nn

from kernels.checks import check_int

from .activations import Activation
from .network import BayesianNetwork


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
        widths = [check_int("n_inputs", n_inputs, 1)]
        widths += [check_int("hidden", width, 1) for width in hidden]
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [nn.Linear(before, after), Activation(activation)]
        layers.append(nn.Linear(widths[-1], check_int("n_outputs", n_outputs, 1)))
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
        before, height, width = (check_int("image_shape", n, 1) for n in image_shape)
        layers: list[nn.Module] = [nn.Unflatten(1, (before, height, width))]
        for after in channels:
            layers += [
                nn.Conv2d(before, check_int("channels", after, 1), 3, padding=1),
                Activation(activation),
                nn.AvgPool2d(2),
            ]
            before, height, width = after, height // 2, width // 2
        if not height * width:
            raise ValueError(
                f"The 'channels' parameter must halve the image at most until it is one pixel; "
                f"got {len(channels)} convolutions for an image of {image_shape}."
            )
        layers += [nn.Flatten(), nn.Linear(before * height * width, n_outputs)]
        super().__init__(nn.Sequential(*layers), fan_in_scaling=fan_in_scaling)
