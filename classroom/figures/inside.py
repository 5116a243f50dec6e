"""What a model is inside, from its own configuration, and where it looks. (Lesson 02.)"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from classroom.figures.style import BLUE, GREEN, MONOSPACE, ORANGE, SKY, new_figure, token_label

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def inside(config: Any) -> Figure:
    """A decoder from ids to logits: embedding, N × attention and MLP, where K and V are kept.

    Args:
        config: of a loaded model of transformers (`model.config`).
    """
    heads = config.num_attention_heads
    kv_heads = getattr(config, "num_key_value_heads", None) or heads
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    width, layers, vocabulary = config.hidden_size, config.num_hidden_layers, config.vocab_size
    figure, (axes,) = new_figure(7.6, 3.6)
    boxes = (  # left, bottom, width, height, colour, text
        (0.0, 1.3, 1.6, 1.4, SKY, f"embedding\n{vocabulary:,} rows\nof {width} numbers"),
        (2.6, 1.3, 1.9, 1.4, ORANGE, f"attention\n{heads} heads\nof {size} numbers"),
        (5.2, 1.3, 1.3, 1.4, SKY, "MLP\neach token\nby itself"),
        (7.6, 1.3, 1.6, 1.4, SKY, f"output\n{vocabulary:,}\nlogits"),
        (2.4, -0.9, 2.3, 1.1, GREEN, f"KV cache of this layer\nK and V, {kv_heads} heads\n× {size} "
                                     "for each token"),
    )  # fmt: skip
    for left, bottom, wide, high, colour, text in boxes:
        axes.barh(bottom + high / 2, wide, left=left, height=high, color=colour, alpha=0.45)
        axes.text(left + wide / 2, bottom + high / 2, text, ha="center", va="center", fontsize=9)
    frame: dict[str, Any] = {"fill": False, "edgecolor": BLUE, "linestyle": "--", "linewidth": 1.5}
    axes.bar(4.55, 4.6, width=4.5, bottom=-1.1, **frame)
    axes.text(4.55, 3.15, f"layer, {layers} times", ha="center", va="center", color=BLUE)
    arrow = {"arrowstyle": "->", "color": "black"}
    for start, end in ((-0.9, 0.0), (1.6, 2.6), (4.5, 5.2), (6.5, 7.6), (9.2, 9.9)):
        axes.annotate("", (end, 2.0), (start, 2.0), arrowprops=arrow)
    axes.annotate("", (3.55, 1.3), (3.55, 0.2), arrowprops={**arrow, "arrowstyle": "<->"})
    axes.text(-0.6, 2.3, "ids", ha="center")
    axes.set(xlim=(-1.0, 10.0), ylim=(-1.3, 3.6))
    axes.axis("off")
    return figure


def attention_map(weights: Any, tokens: Sequence[str]) -> Figure:
    """How much each token takes from each earlier one, in one head.

    Args:
        weights: shares from 0 to 1, shape (tokens, tokens); a row adds up to 1.
        tokens: their texts.

    Raises:
        ValueError: not one row and column a token.
    """
    count = len(tokens)
    if tuple(weights.shape) != (count, count):
        raise ValueError(f"weights: shape ({count}, {count}) is needed, got {weights.shape}")
    figure, (axes,) = new_figure(4.6, 3.6)
    image = axes.imshow(100 * weights, cmap="Blues", vmin=0, vmax=100)
    names = [token_label(token) for token in tokens]
    axes.set_xticks(range(count), names, rotation=45, family=MONOSPACE)
    axes.set_yticks(range(count), names, family=MONOSPACE)
    axes.set(xlabel="looks at", ylabel="token")
    axes.grid(visible=False)
    for row in range(count):
        for column in range(row + 1):
            share = 100 * float(weights[row, column])
            colour = "white" if share > 60 else "black"
            axes.text(column, row, f"{share:.0f}", ha="center", va="center", color=colour)
    figure.colorbar(image, ax=axes, label="attention (%)")
    return figure
