// A model whose call stays open until it is told to go on.
#pragma once

namespace ml {

class Waiting {
public:
    virtual ~Waiting() = default;
    virtual long predict(long value);
};

class Server {
public:
    virtual ~Server() = default;
    virtual long predict(long value);

    Waiting waiting;
};

} // namespace ml

void wait_inside();
