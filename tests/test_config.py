"""Settings: every field is told of, and what cannot be is refused."""

import ast
import inspect

from simgan_aug import config


def test_every_field_of_every_setting_has_its_sentence():
    tree = ast.parse(inspect.getsource(config))

    silent = [
        f"{node.name}.{ast.unparse(item.target)}"
        for node in tree.body
        if isinstance(node, ast.ClassDef)
        for item, follower in zip(node.body, [*node.body[1:], None], strict=True)
        if isinstance(item, ast.AnnAssign) and not _is_sentence(follower)
    ]

    assert silent == []
    assert sum(isinstance(node, ast.ClassDef) for node in tree.body) >= 6


def _is_sentence(node):
    text = node.value.value if isinstance(node, ast.Expr) else None
    return isinstance(text, str) and text.endswith(".")
