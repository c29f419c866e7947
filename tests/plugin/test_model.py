import pytest


@pytest.mark.parametrize(
    "kind", ["experts", "multi", "mole", "distill", "logits_only", "full"]
)
def test_smoke(build, collate, kind):
    m = build(kind)
    loss, stats, w = m(**collate("a1", "a2"))
    print(kind, loss, stats, w)
