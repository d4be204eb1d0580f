"""The tutorials' time client: asks where to, asks the time, asks whether to go on."""
import socket

host = input("Enter hostname [localhost]: ") or "localhost"
port = int(input("Enter port [12345]: ") or "12345")
server = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
server.connect((host, port))
message = "GET TIME"
while True:
    server.send(message.encode("ascii"))
    if message == "END":
        assert server.recv(1024) == b"", "END has no answer"
        break
    print(server.recv(1024).decode("ascii"))
    if input("Send more? [y/N]: ") != "y":
        break
    message = input("Message: ")
server.close()
