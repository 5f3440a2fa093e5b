import pytest
import torch

from leray.algorithms.vqbet.quantizer import Codebook, ResidualVQ, VqVae


def codebook(vectors) -> Codebook:
    book = Codebook(len(vectors), len(vectors[0]))
    book.embed.copy_(torch.tensor(vectors).unsqueeze(0))
    book.embed_avg.copy_(book.embed)
    return book


def residual_vq() -> ResidualVQ:
    quantizer = ResidualVQ(2, 2)
    for level, vectors in zip(
        quantizer.codebooks, ([[0.0, 0.0], [4.0, 0.0]], [[1.0, 0.0], [0.0, 1.0]]), strict=True
    ):
        level.embed.copy_(torch.tensor([vectors]))
        level.embed_avg.copy_(level.embed)
    return quantizer


def test_codebook_follows_what_is_nearest_to_its_codes():
    book = codebook([[0.0], [1.0]])
    vectors = torch.tensor([[0.2], [0.4], [0.9]])
    codes = book.nearest(vectors)
    assert codes.tolist() == [0, 0, 1]
    book.follow(vectors, codes)
    # counts (2, 1) and sums (0.6, 0.9) have weight 0.2, what was there 0.8
    assert book.cluster_size[0].tolist() == pytest.approx([0.4, 0.2])
    assert book.embed_avg[0, :, 0].tolist() == pytest.approx([0.12, 0.98])
    smoothed = [(size + 1e-5) / (0.6 + 2e-5) * 0.6 for size in (0.4, 0.2)]
    expected = [0.12 / smoothed[0], 0.98 / smoothed[1]]
    assert book.embed[0, :, 0].tolist() == pytest.approx(expected, rel=1e-5)


def test_levels_code_what_is_left_over():
    quantizer = residual_vq()
    vectors = torch.tensor([[4.0, 0.9], [1.2, 0.1]], requires_grad=True)
    quantized = quantizer(vectors, learn=False)
    assert quantized.codes.tolist() == [[1, 1], [0, 0]]
    assert quantized.vectors.tolist() == [[4.0, 1.0], [1.0, 0.0]]
    assert torch.equal(quantizer.vectors(quantized.codes), quantized.vectors)
    # level 1: (0 + 0.81 + 1.44 + 0.01) / 4; level 2: (0 + 0.01 + 0.04 + 0.01) / 4
    assert quantized.commitment.item() == pytest.approx(0.565 + 0.015, abs=1e-6)
    quantized.vectors.sum().backward()
    assert vectors.grad.tolist() == [[2.0, 2.0], [2.0, 2.0]]  # once per level


def test_codebooks_move_only_where_they_shall_learn():
    quantizer = residual_vq()
    before = {name: values.clone() for name, values in quantizer.state_dict().items()}
    vectors = torch.tensor([[4.0, 0.9], [1.2, 0.1]])
    quantizer(vectors, learn=False)
    assert all(torch.equal(before[k], v) for k, v in quantizer.state_dict().items())
    quantizer(vectors, learn=True)
    changed = {k for k, v in quantizer.state_dict().items() if not torch.equal(before[k], v)}
    names = ("cluster_size", "embed_avg", "embed")
    assert changed == {f"layers.{i}._codebook.{name}" for i in (0, 1) for name in names}


def test_averages_of_two_learners_give_one_codebook():
    books = [codebook([[0.0], [1.0]]) for _ in range(2)]
    for book, vectors in zip(books, ([[0.2], [0.4]], [[0.9], [1.3]]), strict=True):
        book.follow(torch.tensor(vectors), book.nearest(torch.tensor(vectors)))
    for name in ("cluster_size", "embed_avg"):
        mean = torch.stack([getattr(book, name) for book in books]).mean(0)
        for book in books:
            getattr(book, name).copy_(mean)
    for book in books:
        book.settle()
    assert torch.equal(books[0].embed, books[1].embed)
    # sums: 0.2 * mean(0.6, 0) and 0.8 + 0.2 * mean(0, 2.2); counts: 0.2 * mean(2, 0) for both
    assert books[0].embed[0, :, 0].tolist() == pytest.approx([0.06 / 0.2, 1.02 / 0.2], rel=1e-3)


def make_vqvae() -> VqVae:
    torch.manual_seed(0)
    return VqVae(chunk_size=6, num_codes=4, size=8, hidden_size=16)


def test_evaluation_and_the_second_phase_leave_the_codebooks():
    vqvae, chunks = make_vqvae(), torch.randn(9, 6)
    before = vqvae.vq_layer.codebooks[0].embed.clone()
    vqvae.eval()(chunks)
    assert torch.equal(vqvae.vq_layer.codebooks[0].embed, before)
    vqvae.train().freeze()
    vqvae(chunks)
    vqvae.encode(chunks)
    assert torch.equal(vqvae.vq_layer.codebooks[0].embed, before)
    assert vqvae.discretized
    assert vqvae.vq_layer.freeze_codebook


def test_the_phase_comes_with_the_weights():
    source, target = make_vqvae(), make_vqvae()
    source.freeze()
    target.load_state_dict(source.state_dict())
    assert target.frozen
    target.load_state_dict(make_vqvae().state_dict())
    assert not target.frozen


def test_codes_do_not_depend_on_autocast():
    vqvae, chunks = make_vqvae().eval(), torch.randn(200, 6)
    codes, loss = vqvae.encode(chunks), vqvae(chunks)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(vqvae.encode(chunks), codes)
        assert torch.equal(vqvae(chunks)[0], loss[0])
        assert vqvae.decode(codes).dtype == torch.float32


def test_decoding_needs_only_the_codes():
    vqvae, chunks = make_vqvae().eval(), torch.randn(9, 6)
    decoded = vqvae.decode(vqvae.encode(chunks))
    assert (decoded - chunks).abs().mean().item() == pytest.approx(
        vqvae(chunks)[0].item(), rel=1e-5
    )
