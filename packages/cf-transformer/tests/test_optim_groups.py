from cf_transformer import DiMR, no_decay_names


def test_only_products_and_convolutions_decay(config):
    model = DiMR(config)
    spared = no_decay_names(model)
    decayed = {name for name, _ in model.named_parameters()} - spared
    assert spared < {name for name, _ in model.named_parameters()}
    assert all(name.endswith(".weight") for name in decayed)
    modules = {name.split(".")[-2] for name in decayed}
    assert modules == {"project", "qkv", "out", "w_in", "w_out", "depthwise", "conv", "0"}  # 0 is the skip


def test_time_dependent_leaves_embeddings_and_biases_do_not_decay(config):
    spared = no_decay_names(DiMR(config))
    for name in (
        "stages.0.gains.param0",
        "stages.0.gains.w",
        "cascades.0.shift.b",
        "heads.2.norm.gain.param1",
        "stages.1.embed.position.table",
        "indicator.unconditional",
        "stages.0.blocks.0.mlp.w_in.bias",
    ):
        assert name in spared


def test_names_have_no_leading_dot_when_the_model_is_itself_a_leaf(config):
    leaf = DiMR(config).stages[0].gains
    assert no_decay_names(leaf) == {"param0", "param1", "w", "b"}
