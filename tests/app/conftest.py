from tests.notify.test_channels import certificate

__all__ = ["certificate"]
