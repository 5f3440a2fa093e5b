"""Whole SAC updates against an independent implementation with modules and autograd."""

import copy
import math

import pytest
import torch
from torch import nn

SEED, SIZE, ACTIONS = 11, 32, 2


def _network(named: dict[str, torch.Tensor], group: str, member: int) -> nn.Sequential:
    """Build an `nn.Sequential` from the tensors of one member of an ensemble."""
    layers: list[nn.Module] = []
    index = 0
    while f"{group}.layers.{index}.weight" in named:
        weight = named[f"{group}.layers.{index}.weight"][member]
        linear = nn.Linear(*weight.shape)
        linear.weight.data = weight.T.clone()
        linear.bias.data = named[f"{group}.layers.{index}.bias"][member, 0].clone()
        layers.append(linear)
        if f"{group}.layers.{index}.norm.scale" in named:
            norm = nn.LayerNorm(weight.shape[1])
            norm.weight.data = named[f"{group}.layers.{index}.norm.scale"][member, 0].clone()
            norm.bias.data = named[f"{group}.layers.{index}.norm.shift"][member, 0].clone()
            layers.append(norm)
        layers.append(nn.ReLU())
        index += 1
    return nn.Sequential(*layers[:-1])


def _tensors(network: nn.Sequential) -> list[torch.Tensor]:
    """Return a network's tensors in the order and orientation of the flat block."""
    found = []
    for module in network:
        if isinstance(module, nn.Linear):
            found += [module.weight.T, module.bias]
        elif isinstance(module, nn.LayerNorm):
            found += [module.weight, module.bias]
    return found


class Reference:
    """SAC as the papers write it: modules, `torch.optim.Adam`, autograd."""

    def __init__(self, policy) -> None:
        config = self.config = policy.config
        named = {name: tensor.clone() for name, tensor in policy.networks.named().items()}
        members = range(config.num_critics)
        self.actor = _network(named, "actor", 0)
        self.critics = nn.ModuleList(_network(named, "critic", member) for member in members)
        self.targets = copy.deepcopy(self.critics)
        self.log_alpha = nn.Parameter(named["log_alpha"])
        self.actor_adam = torch.optim.Adam(self.actor.parameters(), lr=config.actor_lr)
        self.critic_adam = torch.optim.Adam(self.critics.parameters(), lr=config.critic_lr)
        self.alpha_adam = torch.optim.Adam([self.log_alpha], lr=config.temperature_lr)
        self.generator = torch.Generator().manual_seed(SEED)
        self.updates = 0

    def update(self, batch) -> None:
        config = self.config
        observation, following = self._vector(batch, ""), self._vector(batch, "next.")
        # bounds of the action: -2..2 and -1..3
        action = batch["action"] / 2 - torch.tensor([0.0, 0.5])
        alpha = self.log_alpha.exp().detach()
        with torch.no_grad():
            next_action, next_log_prob, _ = self._act(following)
            next_q = self._q(self.targets, following, next_action)
            if config.num_subsample_critics not in (None, config.num_critics):
                order = torch.randperm(config.num_critics, generator=self.generator)
                next_q = next_q[order[: config.num_subsample_critics]]
            value = next_q.min(0).values
            if config.use_backup_entropy:
                value = value - alpha * next_log_prob
            target = batch["next.reward"] + batch["bootstrap"] * value
        q_data = self._q(self.critics, observation, action)
        loss = sum(nn.functional.mse_loss(q, target) for q in q_data)
        self._step(self.critic_adam, self.critics.parameters(), loss)
        self.updates += 1
        if self.updates % config.policy_update_freq == 0:
            self._improve(batch, observation, action, alpha, q_data.detach())
        with torch.no_grad():
            tau = config.critic_target_update_weight
            pairs = zip(self.targets.parameters(), self.critics.parameters(), strict=True)
            for slow, fast in pairs:
                slow.copy_((1 - tau) * slow + tau * fast)

    def _improve(self, batch, observation, action, alpha, q_data) -> None:
        config = self.config
        new_action, log_prob, mean = self._act(observation)
        q = self._q(self.critics, observation, new_action)
        value = q.min(0).values if config.num_subsample_critics is None else q.mean(0)
        loss = (alpha * log_prob - value).mean()
        if config.bc_weight:
            mask = batch["is_offline"]
            if config.bc_q_filter:
                mask = mask * (q_data.min(0).values > q.detach().min(0).values)
            distance = (mean.tanh() - action).square().sum(-1)
            loss = loss + config.bc_weight * (mask * distance).mean()
        self._step(self.actor_adam, self.actor.parameters(), loss)
        entropy_target = -ACTIONS if config.target_entropy is None else config.target_entropy
        self.alpha_adam.zero_grad()
        (-self.log_alpha.exp() * (log_prob.detach() + entropy_target)).mean().backward()
        self.alpha_adam.step()

    def _step(self, adam, parameters, loss) -> None:
        adam.zero_grad()
        loss.backward()
        if self.config.grad_clip_norm is not None:
            nn.utils.clip_grad_norm_(list(parameters), self.config.grad_clip_norm)
        adam.step()

    def _vector(self, batch, prefix) -> torch.Tensor:
        state = batch[prefix + "observation.state"] - torch.tensor([0.5, 0.0, -1.0])
        state = state / torch.tensor([2.0, 1.0, 0.5])
        return torch.cat([state, batch[prefix + "observation.environment_state"]], -1)

    def _act(self, observation):
        mean, log_std = self.actor(observation).chunk(2, -1)
        std = log_std.clamp(-20, 2).exp()
        noise = torch.empty(SIZE, ACTIONS).normal_(generator=self.generator)
        pre_tanh = mean + std * noise
        density = torch.distributions.Normal(mean, std).log_prob(pre_tanh)
        correction = 2 * (math.log(2) - pre_tanh - nn.functional.softplus(-2 * pre_tanh))
        return pre_tanh.tanh(), (density - correction).sum(-1), mean

    @staticmethod
    def _q(critics, observation, action) -> torch.Tensor:
        return torch.stack([q(torch.cat([observation, action], -1))[:, 0] for q in critics])


def _assert_equal(policy, reference: Reference, tolerance: float) -> None:
    networks = policy.networks
    groups = [
        (networks.actor, [reference.actor]),
        (networks.critic, list(reference.critics)),
        (networks.target, list(reference.targets)),
    ]
    for parameters, modules in groups:
        for index, tensor in enumerate(parameters.named().values()):
            for member, module in enumerate(modules):
                expected = _tensors(module)[index].detach()
                found = tensor[member].reshape(expected.shape)
                torch.testing.assert_close(found, expected, rtol=0, atol=tolerance)
    expected = reference.log_alpha.detach()
    torch.testing.assert_close(networks.log_alpha, expected, rtol=0, atol=tolerance)


OPTIONS = {
    "sac": {},
    "single critic": {"num_critics": 1},
    "rlpd": {"num_critics": 10, "num_subsample_critics": 2, "layer_norm": True},
    "no backup entropy": {"use_backup_entropy": False, "target_entropy": -0.5},
    "clipped": {"grad_clip_norm": 0.1},
    "imitating": {"bc_weight": 2.0},
    "imitating what is better": {"bc_weight": 2.0, "bc_q_filter": True},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
def test_one_update_equals_plain_autograd(make_policy, make_batch, options):
    policy = make_policy(temperature_init=0.2, critic_target_update_weight=0.3, **options)
    reference = Reference(policy)
    learner = policy.make_learner(batch_size=SIZE, seed=SEED)
    before = policy.networks.actor.flat.clone()
    learner.update(make_batch())
    reference.update(make_batch())
    assert not torch.equal(policy.networks.actor.flat, before)
    _assert_equal(policy, reference, tolerance=1e-6)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
def test_ten_updates_stay_close_to_plain_autograd(make_policy, make_batch, options):
    policy = make_policy(policy_update_freq=2, **options)
    reference = Reference(policy)
    learner = policy.make_learner(batch_size=SIZE, seed=SEED)
    for index in range(10):
        learner.update(make_batch(index))
        reference.update(make_batch(index))
    # Adam divides by the gradient's size, so rounding where a gradient is nearly 0 moves a weight
    # by a share of the learning rate, 1e-3 of the critics
    _assert_equal(policy, reference, tolerance=1e-4)


def test_actor_and_temperature_wait_for_their_turn(make_policy, make_batch):
    policy = make_policy(policy_update_freq=3)
    learner = policy.make_learner(batch_size=SIZE, seed=SEED)
    moved = []
    for index in range(6):
        actor = policy.networks.actor.flat.clone()
        alpha = policy.networks.log_alpha.clone()
        critic = policy.networks.critic.flat.clone()
        learner.update(make_batch(index))
        assert not torch.equal(policy.networks.critic.flat, critic)
        changed = not torch.equal(policy.networks.actor.flat, actor)
        assert changed == (not torch.equal(policy.networks.log_alpha, alpha))
        moved.append(changed)
    assert moved == [False, False, True, False, False, True]


def test_targets_follow_by_tau(make_policy, make_batch):
    policy = make_policy(critic_target_update_weight=0.25)
    target = policy.networks.target.flat.clone()
    policy.make_learner(batch_size=SIZE, seed=SEED).update(make_batch())
    expected = 0.75 * target + 0.25 * policy.networks.critic.flat
    torch.testing.assert_close(policy.networks.target.flat, expected, rtol=1e-6, atol=1e-7)


def test_the_subset_changes_from_update_to_update(make_policy):
    policy = make_policy(num_critics=6, num_subsample_critics=2)
    learner = policy.make_learner(batch_size=SIZE, seed=SEED)
    subsets = [tuple(learner._critic_subset().tolist()) for _ in range(50)]
    assert all(len(set(subset)) == 2 for subset in subsets)
    assert {critic for subset in subsets for critic in subset} == set(range(6))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_seed_decides_everything(make_policy, make_batch, precision):
    def train(seed: int) -> torch.Tensor:
        policy = make_policy(precision=precision)
        learner = policy.make_learner(batch_size=SIZE, seed=seed)
        for index in range(5):
            learner.update(make_batch(index))
        return torch.cat([block.flatten() for block in policy.blocks().values()])

    assert torch.equal(train(1), train(1))
    assert not torch.equal(train(1), train(2))


def test_bfloat16_stays_near_float32(make_policy, make_batch):
    policies = [make_policy(precision=precision) for precision in ("float32", "bfloat16")]
    batch = make_batch()
    for policy in policies:
        policy.make_learner(batch_size=SIZE, seed=SEED).update(batch)
    exact, rounded = (policy.networks for policy in policies)
    # one Adam step moves a weight by at most the learning rate, up or down
    for name, tensor in rounded.named().items():
        assert tensor.dtype == torch.float32
        torch.testing.assert_close(tensor, exact.named()[name], rtol=0, atol=2.01 * 1e-3)
    assert torch.equal(rounded.critic.compute, rounded.critic.flat.bfloat16())
    assert torch.equal(rounded.target.compute, rounded.target.flat.bfloat16())


@pytest.mark.parametrize("options", [{}, {"num_critics": 5, "num_subsample_critics": 2}])
def test_a_restored_learner_goes_on_bit_for_bit(make_policy, make_batch, options):
    policy = make_policy(policy_update_freq=2, **options)
    learner = policy.make_learner(batch_size=SIZE, seed=SEED)
    for index in range(3):
        learner.update(make_batch(index))
    state = {name: tensor.clone() for name, tensor in learner.state_dict().items()}
    blocks = {name: block.clone() for name, block in policy.blocks().items()}

    other = make_policy(seed=5, policy_update_freq=2, **options)
    resumed = other.make_learner(batch_size=SIZE, seed=99)
    for name, block in other.blocks().items():
        block.copy_(blocks[name])
    other.refresh()
    resumed.load_state_dict(state)
    assert resumed.num_updates == 3
    for index in range(3, 8):
        learner.update(make_batch(index))
        resumed.update(make_batch(index))
    for name, block in policy.blocks().items():
        assert torch.equal(block, other.blocks()[name])
    assert learner.metrics() == resumed.metrics()


def test_metrics_are_those_of_the_last_update(make_policy, make_batch):
    policy = make_policy(policy_update_freq=2)
    learner = policy.make_learner(batch_size=SIZE, seed=SEED)
    assert learner.metrics() == {}
    reference = Reference(policy)
    batch = make_batch()
    q = reference._q(
        reference.critics,
        reference._vector(batch, ""),
        batch["action"] / 2 - torch.tensor([0, 0.5]),
    )
    learner.update(batch)
    first = learner.metrics()
    assert set(first) == {"loss/critic", "train/q_mean", "train/alpha"}
    assert first["train/q_mean"] == pytest.approx(q.mean().item(), abs=1e-6)
    assert first["train/alpha"] == 1.0
    learner.update(batch)
    assert set(learner.metrics()) == {*first, "loss/actor", "train/entropy"}
    assert learner.metrics()["train/alpha"] != 1.0


def test_updates_fit_the_critics_to_a_known_value(make_policy, make_batch):
    # every transition is terminal with reward 1: all Q must become 1
    policy = make_policy(critic_lr=3e-3)
    learner = policy.make_learner(batch_size=SIZE, seed=SEED)
    batch = make_batch()
    batch["bootstrap"].zero_()
    batch["next.reward"].fill_(1.0)
    for _ in range(300):
        learner.update(batch)
    assert learner.metrics()["train/q_mean"] == pytest.approx(1.0, abs=0.02)
    assert learner.metrics()["loss/critic"] < 1e-3
