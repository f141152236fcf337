"""The catalogue's entries: what is known of each attention system without importing torch."""

from __future__ import annotations

from types import MappingProxyType

from deploy_attn.modules.catalogue import Constraint, Entry, Option


def _at_least(option: str, least: int) -> Constraint:
    return Constraint(f"{option} >= {least}", (option,), lambda s: s[option] >= least)


def _odd(option: str) -> Constraint:
    return Constraint(f"an odd {option}", (option,), lambda s: s[option] % 2 == 1)


def _divides(divisor: str, dividend: str = "channels", times: int = 1) -> Constraint:
    text = divisor if times == 1 else f"{times} * {divisor}"
    return Constraint(
        f"{dividend} divisible by {text}",
        (dividend, divisor),
        lambda s: s[dividend] % (times * s[divisor]) == 0,
    )


_REDUCTION = Option("reduction", 16, "the hidden layer has channels // reduction units", minimum=1)
_SPATIAL_KERNEL = Option("kernel_size", 7, "kernel of the spatial gate", minimum=1, maximum=255)
_ANY_CHANNELS = Constraint("channels >= 1", ("channels",), lambda s: s.get("channels", 1) >= 1)
_HAS_HIDDEN_UNIT = Constraint(
    "channels >= reduction", ("channels", "reduction"), lambda s: s["channels"] >= s["reduction"]
)
_MORE_THAN_ONE_PLACE = Constraint(
    "a map of more than 1x1: the variance of one value is 0 / 0",
    ("map_height", "map_width"),
    lambda s: s["map_height"] * s["map_width"] > 1,
)
_WEIGHTS_OF_BATCH_NORM = "BatchNorm is folded with the instance's own eps; ultralytics sets eps=1e-3 everywhere."

ENTRIES: tuple[Entry, ...] = (
    Entry(
        name="se",
        title="Squeeze-and-Excitation",
        year=2018,
        arxiv="1709.01507",
        class_name="SE",
        options=(
            _REDUCTION,
            Option("gate", "sigmoid", "hard_sigmoid is MobileNetV3's", choices=("sigmoid", "hard_sigmoid")),
        ),
        constraints=(_ANY_CHANNELS, _HAS_HIDDEN_UNIT),
        source_arguments=MappingProxyType({"channel": "channels", "ratio": "reduction"}),
        parameters="2 * c * (c // reduction)",
        macs="2 * c * (c // reduction)",
        hazards=(
            "Fewer channels than reduction leave no hidden unit: the source then halves the map and says nothing.",
        ),
    ),
    Entry(
        name="cbam",
        title="Convolutional Block Attention Module",
        year=2018,
        arxiv="1807.06521",
        class_name="CBAM",
        options=(_REDUCTION, _SPATIAL_KERNEL),
        constraints=(_ANY_CHANNELS, _HAS_HIDDEN_UNIT, _odd("kernel_size")),
        source_arguments=MappingProxyType({"channel": "channels", "ratio": "reduction"}),
        parameters="2 * c * (c // reduction) + 2 * kernel_size**2",
        macs="4 * c * (c // reduction) + 2 * kernel_size**2 * h * w",
        hazards=(
            "Two orders are in use for the spatial descriptors; here it is [mean, max]. "
            "A checkpoint of the other order needs the two input slices of the kernel swapped.",
        ),
    ),
    Entry(
        name="cbam_residual",
        title="CBAM with a large kernel and a residual",
        year=2018,
        arxiv="1807.06521",
        class_name="CBAMResidual",
        options=(_REDUCTION, Option("kernel_size", 49, "kernel of the spatial gate", minimum=1, maximum=255)),
        constraints=(_ANY_CHANNELS, _HAS_HIDDEN_UNIT, _odd("kernel_size")),
        source_arguments=MappingProxyType({"channel": "channels"}),
        parameters="2 * c * (c // reduction) + 2 * kernel_size**2 + 1",
        macs="4 * c * (c // reduction) + 2 * kernel_size**2 * h * w",
        hazards=(
            "With height and width open the kernel is not cropped to the map, which costs most on small maps.",
            "Two orders are in use for the spatial descriptors; here it is [max, mean].",
        ),
    ),
    Entry(
        name="eca",
        title="Efficient Channel Attention, kernel from the channels",
        year=2020,
        arxiv="1910.03151",
        class_name="ECA",
        options=(
            Option("gamma", 2.0, "kernel is |(log2(channels) + beta) / gamma|, made odd", minimum=0.1, maximum=100),
            Option("beta", 1.0, "see gamma", minimum=-100, maximum=100),
        ),
        constraints=(_ANY_CHANNELS,),
        source_arguments=MappingProxyType({"channel": "channels", "b": "beta"}),
        parameters="odd(abs((log2(c) + beta) / gamma))",
        macs="c * odd(abs((log2(c) + beta) / gamma))",
        hazards=("Below 8 channels the kernel is 1 here and 3 in timm: the checkpoint's kernel decides.",),
    ),
    Entry(
        name="eca_fixed",
        title="Efficient Channel Attention, given kernel and a bias",
        year=2020,
        arxiv="1910.03151",
        class_name="ECAFixed",
        options=(Option("kernel_size", 3, "kernel across the channels", minimum=1, maximum=255),),
        constraints=(_ANY_CHANNELS, _odd("kernel_size")),
        source_arguments=MappingProxyType({"channel": "channels"}),
        parameters="kernel_size + 1",
        macs="c * kernel_size",
        hazards=("The official code has no bias; its checkpoints load into `eca`.",),
        needs_channels=False,
    ),
    Entry(
        name="s2",
        title="S2-MLPv2 spatial-shift attention",
        year=2021,
        arxiv="2108.01072",
        class_name="S2",
        options=(
            Option(
                "semantics",
                "shift",
                "shift: as in the paper and in exports; smear: what in-place copies give on one CPU thread",
                choices=("shift", "smear"),
            ),
        ),
        constraints=(_ANY_CHANNELS,),
        source_arguments=MappingProxyType({"channel": "channels"}),
        parameters="8 * c * c + 4 * c",
        macs="4 * c * c * h * w + 4 * c * c",
        hazards=(
            "The source's in-place shift is undefined in PyTorch: one CPU thread, several, a GPU and an export differ.",
            "The descriptor is a sum over height and width: a checkpoint belongs to one resolution.",
        ),
    ),
    Entry(
        name="cot",
        title="Contextual Transformer attention, softmax over the map",
        year=2021,
        arxiv="2107.12292",
        class_name="CoT",
        options=(Option("kernel_size", 3, "kernel of the key embedding", minimum=1, maximum=31),),
        constraints=(
            _at_least("channels", 4),
            Constraint("channels divisible by 4, its groups", ("channels",), lambda s: s["channels"] % 4 == 0),
            _odd("kernel_size"),
        ),
        source_arguments=MappingProxyType({"dim": "channels"}),
        parameters=(
            "c * (c // 4) * kernel_size**2 + 2 * c * c + (c // 2) * c * kernel_size**2 + c * kernel_size**2 + 5 * c"
        ),
        macs=("(c * (c // 4) * kernel_size**2 + c * c + 2 * c * (c // 2) + (c // 2) * c * kernel_size**2) * h * w"),
        hazards=(
            "It is not the operator of the paper: the weights are a softmax over height x width, without local "
            "aggregation. Checkpoints of the official CotLayer do not fit.",
            _WEIGHTS_OF_BATCH_NORM,
        ),
    ),
    Entry(
        name="mobilevit",
        title="MobileViT block",
        year=2021,
        arxiv="2110.02178",
        class_name="MobileViT",
        options=(
            Option("dim", 512, "width of the transformer", minimum=1),
            Option("kernel_size", 3, "kernel of the local convolutions", minimum=1, maximum=31),
            Option("patch_size", 7, "height and width of a patch", minimum=1),
        ),
        constraints=(_ANY_CHANNELS, _odd("kernel_size")),
        source_arguments=MappingProxyType({"in_channel": "channels"}),
        parameters=(
            "3 * c * c * kernel_size**2 + 2 * c * dim + dim + 3 * c"
            " + 3 * (4 * 512 * dim + dim + 2 * 1024 * dim + 1024 + dim + 4 * dim)"
        ),
        macs=(
            "h * w * (c * c * kernel_size**2 + 2 * c * dim + 2 * c * c * kernel_size**2"
            " + 3 * (4 * 512 * dim + 2 * 1024 * dim + 2 * 512 * (h // patch_size) * (w // patch_size)))"
        ),
        hazards=(
            "Other implementations resize a map that is no multiple of the patch; the source, and so this, refuses it.",
        ),
        map_constraints=(_divides("patch_size", "map_height"), _divides("patch_size", "map_width")),
        open_map_constraints=(
            Constraint("a fixed height and width: the patches are cut by static reshapes", (), lambda s: False),
        ),
    ),
    Entry(
        name="simam",
        title="SimAM, parameter-free attention",
        year=2021,
        arxiv="",
        class_name="SimAM",
        options=(Option("e_lambda", 1e-4, "added to the variance", minimum=1e-12, maximum=1e6),),
        constraints=(_ANY_CHANNELS,),
        source_arguments=MappingProxyType({"channel": "channels"}),
        parameters="0",
        macs="0",
        hazards=(
            "In plain FP16 the sum of squares overflows and every gate is sigmoid(0.5) = 0.622: finite, and wrong.",
            "A deviation above 255 has a square that overflows by itself, which gives NaN.",
            "A 1x1 map has no variance: refused, where the source gives NaN.",
        ),
        map_constraints=(_MORE_THAN_ONE_PLACE,),
        needs_channels=False,
    ),
    Entry(
        name="sk",
        title="Selective Kernel attention",
        year=2019,
        arxiv="1903.06586",
        class_name="SK",
        options=(
            Option("kernel_sizes", (1, 3, 5, 7), "one dense branch each", minimum=1, maximum=31),
            Option("reduction", 16, "the hidden layer has max(min_hidden, channels // reduction) units", minimum=1),
            Option("groups", 1, "groups of each branch", minimum=1),
            Option("min_hidden", 32, "see reduction", minimum=1),
        ),
        constraints=(
            _ANY_CHANNELS,
            _divides("groups"),
            Constraint("odd kernel_sizes", ("kernel_sizes",), lambda s: all(k % 2 == 1 for k in s["kernel_sizes"])),
        ),
        source_arguments=MappingProxyType(
            {"channel": "channels", "kernels": "kernel_sizes", "group": "groups", "L": "min_hidden"}
        ),
        parameters=(
            "sum(c * (c // groups) * k**2 + 3 * c for k in kernel_sizes) + (c + 1) * max(min_hidden, c // reduction)"
            " + len(kernel_sizes) * (max(min_hidden, c // reduction) + 1) * c"
        ),
        macs=(
            "h * w * sum(c * (c // groups) * k**2 for k in kernel_sizes)"
            " + (1 + len(kernel_sizes)) * c * max(min_hidden, c // reduction)"
        ),
        hazards=(
            "The branches are dense up to 7x7: by far the most expensive of the channel gates.",
            _WEIGHTS_OF_BATCH_NORM,
        ),
    ),
    Entry(
        name="shuffle",
        title="Shuffle Attention",
        year=2021,
        arxiv="2102.00240",
        class_name="Shuffle",
        options=(Option("groups", 8, "groups of channels that share their weights", minimum=1),),
        constraints=(_ANY_CHANNELS, _divides("groups", times=2)),
        source_arguments=MappingProxyType({"channel": "channels", "G": "groups"}),
        parameters="3 * c // groups",
        macs="0",
        hazards=(
            "The source raises on channels_last maps; both forms here take them.",
            "For GPUs the form squares deviations: in plain FP16 they overflow, and the gate is finite and wrong.",
        ),
    ),
    Entry(
        name="triplet",
        title="Triplet Attention",
        year=2020,
        arxiv="2010.03045",
        class_name="Triplet",
        options=(Option("no_spatial", False, "leave out the branch over height and width"),),
        constraints=(_ANY_CHANNELS,),
        source_arguments=MappingProxyType({"channel": "channels"}),
        parameters="(2 if no_spatial else 3) * 100",
        macs="98 * (c * w + h * c + (0 if no_spatial else h * w))",
        hazards=(_WEIGHTS_OF_BATCH_NORM,),
        needs_channels=False,
    ),
    Entry(
        name="parnet",
        title="ParNet attention",
        year=2021,
        arxiv="2110.07641",
        class_name="ParNet",
        options=(),
        constraints=(_ANY_CHANNELS,),
        source_arguments=MappingProxyType({"channel": "channels"}),
        parameters="11 * c * c + 7 * c",
        macs="10 * c * c * h * w + c * c",
        hazards=(
            "The official block has a BatchNorm on its identity branch; here, as in the source, it has none.",
            _WEIGHTS_OF_BATCH_NORM,
        ),
    ),
    Entry(
        name="mhsa",
        title="Multi-head self-attention of BoTNet",
        year=2021,
        arxiv="2101.11605",
        class_name="MHSA",
        options=(
            Option("heads", 4, "attention heads", minimum=1),
            Option("pos_emb", False, "add the position term"),
            Option("width", 14, "first extent of the position table; the map's height goes here", minimum=1),
            Option("height", 14, "second extent of the position table; the map's width goes here", minimum=1),
        ),
        constraints=(_ANY_CHANNELS, _divides("heads")),
        source_arguments=MappingProxyType({"n_dims": "channels"}),
        parameters="3 * c * (c + 1) + (c * (width + height) if pos_emb else 0)",
        macs="3 * c * c * h * w + 2 * c * (h * w)**2 + (c * h * w * width * height if pos_emb else 0)",
        hazards=(
            "The logits have no scale: at large activations plain FP16 overflows. Adding one changes what was trained.",
            "For GPUs the weights of all places to all places are one tensor: 4 * heads * (h * w)**2 bytes in FP32.",
            "The position term is the transpose of the paper's, its extents are named the wrong way round: both kept.",
        ),
        map_constraints=(
            Constraint(
                "no more places on the map than in the position table, width * height",
                ("map_height", "map_width", "pos_emb", "width", "height"),
                lambda s: not s["pos_emb"] or s["map_height"] * s["map_width"] <= s["width"] * s["height"],
            ),
        ),
        open_map_constraints=(
            Constraint(
                "pos_emb=False: the position table is cut to one height and width",
                ("pos_emb",),
                lambda s: not s["pos_emb"],
            ),
        ),
    ),
    Entry(
        name="gsop",
        title="Global second-order pooling",
        year=2019,
        arxiv="1811.12006",
        class_name="GSoP",
        options=(Option("att_dim", 128, "channels of the covariance", minimum=1),),
        constraints=(_ANY_CHANNELS,),
        source_arguments=MappingProxyType({"channel": "channels"}),
        parameters="att_dim * (c + 5) + 4 * att_dim * (att_dim + 1) + c * (4 * att_dim + 1)",
        macs="att_dim * h * w * (c + att_dim + h * w) + 4 * att_dim * (att_dim + c)",
        hazards=(
            "The source multiplies by a centring matrix of (height x width) squared, below FP16's normal numbers.",
            _WEIGHTS_OF_BATCH_NORM,
        ),
    ),
    Entry(
        name="srm",
        title="Style-based Recalibration Module",
        year=2019,
        arxiv="1903.10829",
        class_name="SRM",
        options=(),
        constraints=(_ANY_CHANNELS,),
        source_arguments=MappingProxyType({"channel": "channels"}),
        parameters="4 * c",
        macs="0",
        hazards=(
            "A 1x1 map has no deviation: refused, where the source gives NaN.",
            "In plain FP16 the variance overflows at large activations: finite, and wrong.",
            _WEIGHTS_OF_BATCH_NORM,
        ),
        map_constraints=(_MORE_THAN_ONE_PLACE,),
    ),
    Entry(
        name="gct",
        title="Gated Channel Transformation",
        year=2020,
        arxiv="1909.11519",
        class_name="GCT",
        options=(
            Option("epsilon", 1e-5, "added to the squared norms", minimum=1e-12, maximum=1),
            Option("mode", "l2", "norm of a channel", choices=("l2", "l1")),
            Option("after_relu", False, "with l1: the map is not negative, so no absolute value is taken"),
        ),
        constraints=(_ANY_CHANNELS,),
        source_arguments=MappingProxyType({"num_channels": "channels", "channel": "channels"}),
        parameters="3 * c",
        macs="0",
        hazards=("In plain FP16 the sum of squares over the map overflows: NaN everywhere.",),
    ),
    Entry(
        name="fca",
        title="FcaNet, frequency channel attention",
        year=2021,
        arxiv="2012.11879",
        class_name="FCA",
        options=(
            _REDUCTION,
            Option("dct_height", 7, "height of the DCT", minimum=1, maximum=1024),
            Option("dct_width", 7, "width of the DCT", minimum=1, maximum=1024),
            Option("frequencies", "top16", "which are taken", choices=("top1", "top2", "top4", "top8", "top16")),
        ),
        constraints=(
            _ANY_CHANNELS,
            _HAS_HIDDEN_UNIT,
            Constraint(
                "channels divisible by the number of frequencies",
                ("channels", "frequencies"),
                lambda s: s["channels"] % int(s["frequencies"][3:]) == 0,
            ),
        ),
        source_arguments=MappingProxyType(
            {
                "channel": "channels",
                "dct_h": "dct_height",
                "dct_w": "dct_width",
                "freq_sel_method": "frequencies",
            }
        ),
        parameters="2 * c * (c // reduction)",
        macs="2 * c * (c // reduction)",
        hazards=(
            "The DCT's weights are a buffer of the checkpoint and are read from there, never computed again.",
            "A pooling to a size that does not divide the map is refused by the exporter; the export form has none.",
        ),
        open_map_constraints=(
            Constraint(
                "a fixed height and width: the pooling and the DCT are one constant of that size", (), lambda s: False
            ),
        ),
    ),
    Entry(
        name="encnet",
        title="EncNet context encoding",
        year=2018,
        arxiv="1803.08904",
        class_name="EncNet",
        options=(
            Option("codes", 32, "codewords", minimum=1),
            Option("se_loss", False, "hold the head of the training loss, so that its checkpoints load"),
            Option("classes", 19, "outputs of that head", minimum=1),
        ),
        constraints=(_ANY_CHANNELS,),
        source_arguments=MappingProxyType({"in_channels": "channels", "ncodes": "codes", "nclass": "classes"}),
        parameters="2 * c * c + 3 * c + codes * (c + 1) + 2 * codes + (classes * (c + 1) if se_loss else 0)",
        macs="c * c * h * w + c * c",
        hazards=(
            "Squared distances to the codewords overflow plain FP16.",
            "Its assignment is often nearly one-hot: in the source's form, subnormal weights slow some CPUs down.",
        ),
    ),
    Entry(
        name="bilinear",
        title="Bilinear attention over channel pairs",
        year=2019,
        arxiv="",
        class_name="Bilinear",
        options=(),
        constraints=(_at_least("channels", 16),),
        source_arguments=MappingProxyType({"inChannels": "channels"}),
        parameters="(c + 3) * (c // 16) + 2 * c * ((c // 16) * (c // 16 + 1) // 2 + 3)",
        macs="c * h * w * (c // 16 + (c // 16) * (c // 16 + 1) // 2) + c * ((c // 16) * (c // 16 + 1) // 2)",
        hazards=(
            "Products of two features grow with the square of the activations.",
            "The Bilinear Attention Transform (CVPR 2020) and the BAN of visual question answering share only a name.",
            _WEIGHTS_OF_BATCH_NORM,
        ),
    ),
    Entry(
        name="self_attention",
        title="Self-attention over the places of a map",
        year=2017,
        arxiv="1706.03762",
        class_name="SelfAttention",
        options=(Option("scale", False, "divide the logits by the root of channels"),),
        constraints=(_ANY_CHANNELS,),
        source_arguments=MappingProxyType({"channel": "channels"}),
        parameters="3 * c * c",
        macs="3 * c * c * h * w + 2 * c * (h * w)**2",
        hazards=(
            "Without scale the logits overflow plain FP16 at large activations.",
            "For GPUs the weights of all places to all places are one tensor: 4 * (h * w)**2 bytes in FP32.",
        ),
    ),
    Entry(
        name="non_local",
        title="Non-local block",
        year=2018,
        arxiv="1711.07971",
        class_name="NonLocal",
        options=(
            Option("inter_channels", 0, "channels of the embeddings; 0 is channels // 2", minimum=0),
            Option(
                "mode",
                "embedded_gaussian",
                "pairwise function",
                choices=("embedded_gaussian", "gaussian", "dot_product", "concatenation"),
            ),
            Option("sub_sample", True, "max-pool what is attended to, 2x2"),
            Option("bn_layer", True, "BatchNorm after the last convolution"),
            Option(
                "scale",
                "none",
                "what divides the logits: none, or the root of inter_channels or of channels",
                choices=("none", "inter_channels", "channels"),
            ),
        ),
        constraints=(
            Constraint(
                "at least one embedding channel (channels // 2)",
                ("channels", "inter_channels"),
                lambda s: s["channels"] >= 1 and (s["inter_channels"] or s["channels"] // 2) >= 1,
            ),
            Constraint(
                "mode=embedded_gaussian, whose logits alone the sources divide, or scale=none",
                ("mode", "scale"),
                lambda s: s["mode"] == "embedded_gaussian" or s["scale"] == "none",
            ),
        ),
        source_arguments=MappingProxyType({"in_channels": "channels"}),
        parameters=(
            "(lambda d: (1 if mode == 'gaussian' else 3) * d * (c + 1) + c * (d + 1) + (2 * c if bn_layer else 0)"
            " + (2 * d if mode == 'concatenation' else 0))(inter_channels or c // 2)"
        ),
        macs=(
            "(lambda d, n, m: (2 if mode == 'gaussian' else 4) * c * d * n + n * m * d"
            " + n * m * (c if mode == 'gaussian' else 2 * d if mode == 'concatenation' else d))"
            "(inter_channels or c // 2, h * w, (h // 2) * (w // 2) if sub_sample else h * w)"
        ),
        hazards=(
            "Three common versions divide the logits by nothing, by the root of inter_channels, or by the root of "
            "channels: the option `scale` must match the source.",
            _WEIGHTS_OF_BATCH_NORM,
        ),
        map_constraints=(
            Constraint(
                "at least 2x2 places to sub-sample",
                ("map_height", "map_width", "sub_sample"),
                lambda s: not s["sub_sample"] or min(s["map_height"], s["map_width"]) >= 2,
            ),
        ),
    ),
)
