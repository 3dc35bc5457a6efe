"""What every part of TideFS agrees on: values, messages, the RPC protocol, the ports."""
