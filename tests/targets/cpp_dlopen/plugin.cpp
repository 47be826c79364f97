// A model in a shared object that comes and goes.
namespace plugin {

class Model {
public:
    virtual ~Model() = default;
    virtual long predict(long value);
};

long Model::predict(long value) { return value * value % 97; }

} // namespace plugin

extern "C" long plugin_run(long value) {
    plugin::Model model;
    plugin::Model* volatile pointer = &model;
    return pointer->predict(value);
}
