"""`python -m deploy_attn` is `deploy-attn`."""

from deploy_attn.cli import main

if __name__ == "__main__":
    main()
