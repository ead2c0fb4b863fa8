"""The vocabulary: what kind of operation each ATen name is.

An operation that has a kind is recorded whole, so that one rule can speak about it on every device;
an unknown composite is recorded as the parts it is made of.
"""

from functools import cache

KINDS: dict[str, frozenset[str]] = {
    "convolution": frozenset(
        "conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d convolution _convolution".split()
    ),
    "linear": frozenset("linear addmm mm".split()),
    "product": frozenset("bmm baddbmm matmul scaled_dot_product_attention".split()),
    "batch_norm": frozenset(
        "batch_norm native_batch_norm _native_batch_norm_legit_no_training cudnn_batch_norm".split()
    ),
    "norm": frozenset("layer_norm group_norm instance_norm rms_norm native_layer_norm native_group_norm".split()),
    "rectifier": frozenset(
        "relu relu6 leaky_relu prelu _prelu_kernel rrelu elu celu selu silu gelu hardswish hardtanh mish softplus "
        "threshold".split()
    ),
    "clamp": frozenset("clamp clamp_min clamp_max clip maximum minimum".split()),
    "squash": frozenset("sigmoid tanh hardsigmoid softsign".split()),
    "softmax": frozenset("softmax log_softmax _softmax _log_softmax _safe_softmax".split()),
    "sum": frozenset("add sub rsub".split()),
    "scale": frozenset("mul div".split()),
    "concatenate": frozenset("cat concat stack".split()),
    "max_pool": frozenset(
        "max_pool1d max_pool2d max_pool3d max_pool2d_with_indices max_pool3d_with_indices adaptive_max_pool1d "
        "adaptive_max_pool2d adaptive_max_pool3d max_pool1d_with_indices amax".split()
    ),
    "average_pool": frozenset(
        "avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d "
        "_adaptive_avg_pool2d _adaptive_avg_pool3d mean".split()
    ),
    "dropout": frozenset("dropout feature_dropout alpha_dropout feature_alpha_dropout native_dropout".split()),
    "upsample": frozenset(
        "upsample_nearest1d upsample_nearest2d upsample_nearest3d upsample_linear1d upsample_bilinear2d "
        "upsample_bicubic2d upsample_trilinear3d pixel_shuffle pixel_unshuffle channel_shuffle".split()
    ),
    "view": frozenset(
        "view _unsafe_view reshape flatten unflatten squeeze unsqueeze permute transpose t numpy_T expand expand_as "
        "slice select narrow chunk split split_with_sizes unbind contiguous clone alias pad constant_pad_nd to "
        "_to_copy type_as as_strided movedim roll flip repeat index index_select gather".split()
    ),
    "detach": frozenset({"detach"}),
}

KIND_OF: dict[str, str] = {name: kind for kind, names in KINDS.items() for name in names}


@cache
def base_name(name: str) -> str:
    """The functional name of an operation: `relu_` is `relu`; private names keep their underscore in front.

    Example:
        >>> base_name("relu_"), base_name("_softmax"), base_name("__iadd__")
        ('relu', '_softmax', '__iadd__')
    """
    return name if name.startswith("__") else name.rstrip("_") or name


@cache
def kind_of(name: str) -> str:
    """The kind of an operation, or `other`."""
    return KIND_OF.get(base_name(name), "other")
