// A server that answers HTTP/1.1 with a thread for each connection, which waits for its requests.
//
// Says `port N`, and serves until its input is closed. `GET /KIND/N` calls the model with the number N modulo 16, unless the kind is `none`;
// `executor`: on another thread, for which it waits.
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <string>
#include <thread>

#include "models.hpp"

static unsigned long call_model(unsigned long number) {
    switch (number % 16) {
#define CALL(NUMBER)                                                                                                   \
    case 1##NUMBER - 100: return ml::Model##NUMBER().predict(number);
        EACH_MODEL(CALL)
    }
    return 0;
}

static std::string answer(const std::string& head) {
    const size_t kind = head.find('/') + 1, slash = head.find('/', kind);
    const std::string name = head.substr(kind, slash - kind);
    const unsigned long number = strtoul(head.c_str() + slash + 1, nullptr, 10);
    unsigned long value = 0;
    if (name == "executor") {
        std::thread([&] { value = call_model(number); }).join();
    } else if (name != "none") {
        value = call_model(number);
    }
    const std::string body = std::to_string(value);
    return "HTTP/1.1 200 OK\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body;
}

static void serve(int connection) {
    std::string unread;
    char buffer[4096];
    for (;;) {
        size_t end;
        while ((end = unread.find("\r\n\r\n")) == std::string::npos) {
            const ssize_t count = recv(connection, buffer, sizeof buffer, 0);
            if (count <= 0) {
                close(connection);
                return;
            }
            unread.append(buffer, count);
        }
        const std::string text = answer(unread.substr(0, end));
        unread.erase(0, end + 4);
        for (size_t sent = 0; sent < text.size();) {
            const ssize_t count = send(connection, text.data() + sent, text.size() - sent, MSG_NOSIGNAL);
            if (count <= 0) break;
            sent += count;
        }
    }
}

int main() {
    const int server = socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address = {};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t length = sizeof address;
    if (bind(server, reinterpret_cast<sockaddr*>(&address), length) != 0 || listen(server, 64) != 0) return 1;
    getsockname(server, reinterpret_cast<sockaddr*>(&address), &length);
    printf("port %d\n", ntohs(address.sin_port));
    fflush(stdout);
    std::thread([server] {
        for (;;) {
            const int connection = accept(server, nullptr, nullptr);
            if (connection < 0) return;
            std::thread(serve, connection).detach();
        }
    }).detach();
    while (getchar() != EOF) {
    }
    _exit(0);
}
