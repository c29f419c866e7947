"""A bank of LoRA experts in one frozen model, and gates that combine them."""
