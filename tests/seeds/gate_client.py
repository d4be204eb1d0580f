"""The tutorials' gate client: answers the challenge, then sends lines and prints replies.

usage: gate_client.py HOST PORT SECRET
"""
import hashlib
import hmac
import socket
import sys

host, port, secret = sys.argv[1], int(sys.argv[2]), sys.argv[3]
with socket.create_connection((host, port)) as server:
    challenge = server.recv(32)
    server.send(hmac.new(secret.encode(), challenge, hashlib.md5).digest())
    while True:
        try:
            line = input(">>: ").strip()
        except EOFError:
            break
        if not line:
            continue
        if line == "quit":
            break
        try:
            server.send(line.encode("utf-8"))
            reply = server.recv(1024)
        except ConnectionError:  # It had closed before it could read this line.
            reply = b""
        if not reply:
            print("the server closed the connection")
            break
        print(reply.decode("utf-8"))
