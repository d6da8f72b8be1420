"""Reads a Transformers model at the sites that saif names, and steers it.

Every forward pass is over the whole text, without a cache: what a token sees then depends on the text alone.
"""

import torch


class Parts:
    """The modules of a decoder that carry the sites, whatever the family calls them."""

    def __init__(self, model):
        kind = model.config.model_type
        self.model = model
        self.post_norms = kind in ("gemma2", "gemma3_text", "olmo2")
        self.residual_multiplier = getattr(model.config, "residual_multiplier", 1.0)
        self.parallel = bool(getattr(model.config, "use_parallel_residual", False))
        self.positions = None
        if kind == "gpt2":
            core = model.transformer
            self.blocks, self.embed, self.positions, self.norm = core.h, core.wte, core.wpe, core.ln_f
            self._names = ("attn", "attn.c_proj", "ln_2", "mlp")
        elif kind == "gpt_neox":
            core = model.gpt_neox
            self.blocks, self.embed, self.norm = core.layers, core.embed_in, core.final_layer_norm
            self._names = ("attention", "attention.dense", "post_attention_layernorm", "mlp")
        else:
            core = model.model
            self.blocks, self.embed, self.norm = core.layers, core.embed_tokens, core.norm
            before_mlp = {"gemma2": "pre_feedforward_layernorm", "gemma3_text": "pre_feedforward_layernorm",
                          "olmo2": "mlp"}.get(kind, "post_attention_layernorm")
            self._names = ("self_attn", "self_attn.o_proj", before_mlp, "mlp")

    def projection(self, block):
        """The output projection of attention: its input is hook_z."""
        return block.get_submodule(self._names[1])

    def middle(self, block):
        """The module whose input is the residual stream between attention and MLP; None in a parallel block."""
        return None if self.parallel else block.get_submodule(self._names[2])

    def attention_end(self, block):
        """The module whose output attention adds to the residual stream (times residual_multiplier)."""
        return block.post_attention_layernorm if self.post_norms else self.projection(block)

    def mlp_end(self, block):
        """The module whose output the MLP adds to the residual stream (times residual_multiplier)."""
        return block.post_feedforward_layernorm if self.post_norms else block.get_submodule(self._names[3])


def _rows(value):
    value = value[0] if isinstance(value, tuple) else value
    return value.detach().reshape(-1, value.shape[-1]).float().clone()


class _Hooks:
    """Forward hooks that write into `values` and go away with the context."""

    def __init__(self):
        self.values, self._handles = {}, []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for handle in self._handles:
            handle.remove()

    def input_of(self, module, name):
        def hook(_, args, kwargs):
            self.values[name] = _rows(args[0] if args else kwargs["hidden_states"])
        self._handles.append(module.register_forward_pre_hook(hook, with_kwargs=True))

    def output_of(self, module, name, factor=1.0):
        def hook(_, __, output):
            self.values[name] = _rows(output) * factor
        self._handles.append(module.register_forward_hook(hook))

    def add(self, module, vector, first):
        """Adds `vector` to the output of a block at positions `first` and after."""
        def hook(_, __, output):
            hidden = output[0] if isinstance(output, tuple) else output
            hidden = torch.cat([hidden[:, :first], hidden[:, first:] + vector.to(hidden.dtype)], dim=1)
            return (hidden, *output[1:]) if isinstance(output, tuple) else hidden
        self._handles.append(module.register_forward_hook(hook))


@torch.no_grad()
def logits_of(model, ids):
    """Logits [n_tokens, vocab] of a text."""
    return model(input_ids=torch.tensor([ids]), use_cache=False).logits[0].float()


def record(model, ids):
    """All sites of a forward pass over `ids`, by name, in float32."""
    parts = Parts(model)
    with _Hooks() as hooks:
        if parts.positions is not None:
            hooks.output_of(parts.embed, "hook_embed")
            hooks.output_of(parts.positions, "hook_pos_embed")
        else:
            hooks.input_of(parts.blocks[0], "hook_embed")
        for index, block in enumerate(parts.blocks):
            prefix = f"blocks.{index}."
            hooks.input_of(block, prefix + "hook_resid_pre")
            hooks.input_of(parts.projection(block), prefix + "attn.hook_z")
            hooks.output_of(parts.attention_end(block), prefix + "hook_attn_out", parts.residual_multiplier)
            if not parts.parallel:
                hooks.input_of(parts.middle(block), prefix + "hook_resid_mid")
            hooks.output_of(parts.mlp_end(block), prefix + "hook_mlp_out", parts.residual_multiplier)
            hooks.output_of(block, prefix + "hook_resid_post")
        hooks.output_of(parts.norm, "ln_final.hook_normalized")
        logits = logits_of(model, ids)
        return {**hooks.values, "logits": logits}


def bookkeeping(sites, n_layers):
    """How far (relative to the stream) the residual stream is from the sum of what was added to it, at most."""
    worst = 0.0
    for index in range(n_layers):
        at = {key: sites.get(f"blocks.{index}.hook_{key}")
              for key in ("resid_pre", "attn_out", "resid_mid", "mlp_out", "resid_post")}
        total = at["resid_pre"] + at["attn_out"]
        if at["resid_mid"] is not None:
            worst = max(worst, distance(total, at["resid_mid"]))
        worst = max(worst, distance(total + at["mlp_out"], at["resid_post"]))
    return worst


def distance(value, golden):
    """Largest absolute difference, divided by the largest absolute value of the golden."""
    return float((value - golden).abs().max() / golden.abs().max())


class TooClose(Exception):
    """A greedy choice whose margin is too small to be reproduced by other arithmetic."""


class Greedy:
    """Greedy choices of a model, optionally with a vector added after a block."""

    def __init__(self, model, block=None, vector=None):
        self.model, self.block, self.vector = model, block, vector

    def logits(self, ids, first):
        if self.block is None:
            return logits_of(self.model, ids)
        with _Hooks() as hooks:
            hooks.add(Parts(self.model).blocks[self.block], self.vector, first)
            return logits_of(self.model, ids)

    def run(self, prompt, n, margin):
        """`n` ids after `prompt` and the least margin; TooClose where a margin is below `margin`."""
        ids, least = list(prompt), float("inf")
        for _ in range(n):
            best = self.logits(ids, len(prompt) - 1)[-1].topk(2)
            least = min(least, float(best.values[0] - best.values[1]))
            if least < margin:
                raise TooClose(f"margin {least:.3g} < {margin:.3g} after {len(ids) - len(prompt)} ids")
            ids.append(int(best.indices[0]))
        return ids[len(prompt):], least
