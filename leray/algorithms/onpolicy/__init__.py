"""What PPO and APPO share: options, the policy that acts, and the adapter over stock RLlib."""
