// A small library with what the parsers read: methods, a virtual one, an exception with a handler, a jump table.
#include <stdexcept>

namespace models {

class Model {
public:
    virtual ~Model() = default;
    virtual int predict(int value) = 0;
    int fit(int value);
};

class Table : public Model {
public:
    int predict(int value) override;
    int seen = 0;
};

int Model::fit(int value) {
    try {
        return predict(value);
    } catch (const std::runtime_error &) {
        return -1;
    }
}

int Table::predict(int value) {
    seen += value;
    switch (value) {
    case 0: return seen * 3;
    case 1: return seen / 7;
    case 2: return seen ^ 0x55;
    case 3: throw std::runtime_error("three");
    case 4: return seen << 3;
    case 5: return seen - 1;
    case 6: return fit(5);
    default: return 0;
    }
}

} // namespace models
