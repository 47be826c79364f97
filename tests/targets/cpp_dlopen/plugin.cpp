// What the program calls.
#include "plugin.hpp"

extern "C" long plugin_run(long value) {
    plugin::Model model;
    return model.predict(value);
}
