"""Learning from demonstrations: what BC, ACT, Diffusion Policy and VQ-BeT share."""
