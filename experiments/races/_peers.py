"""What the races on keras-hub's networks share."""


def resnet18(side):
    """Build keras-hub's ResNet-18 with random weights, for images of this side in pixels."""
    import keras_hub

    return keras_hub.models.ResNetBackbone(
        input_conv_filters=[64],
        input_conv_kernel_sizes=[7],
        stackwise_num_filters=[64, 128, 256, 512],
        stackwise_num_blocks=[2, 2, 2, 2],
        stackwise_num_strides=[1, 2, 2, 2],
        block_type="basic_block",
        image_shape=(side, side, 3),
    )
